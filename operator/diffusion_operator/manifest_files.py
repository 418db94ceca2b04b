"""Pipelines in files, folders and standard input, read as strictly as kubectl sends them."""

import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffusion_contract.documents import KIND, InvalidSpecError, read_pipeline
from diffusion_operator.errors import BadInputError

STANDARD_INPUT = "-"
SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True)
class PipelineDocument:
    """A DiffusionPipeline as it was written.

    Attributes:
        file: where it stands, for messages.
    """

    file: str
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the pipeline."""
        metadata = self.document.get("metadata")
        return str(metadata.get("name", "(no name)")) if isinstance(metadata, dict) else "(no name)"

    def problems(self) -> tuple[str, ...]:
        """What the API server would object to."""
        try:
            read_pipeline(self.document)
        except InvalidSpecError as error:
            return error.problems
        return ()


def read_pipelines(paths: Sequence[str]) -> tuple[PipelineDocument, ...]:
    """All pipelines.

    Args:
        paths: files; folders, of which every YAML and JSON file below is read, without hidden ones; `-` is standard
            input.

    Raises:
        BadInputError: a file cannot be read or is not YAML, or a path holds no pipeline.
    """
    return tuple(document for path in paths for document in _pipelines(path))


def require_valid(documents: Iterable[PipelineDocument]) -> None:
    """Raise one error about all that is wrong.

    Raises:
        BadInputError: a pipeline is not valid.
    """
    lines = [line for document in documents if (problems := document.problems()) for line in _lines(document, problems)]
    if lines:
        raise BadInputError("\n".join(lines))


def _lines(document: PipelineDocument, problems: Sequence[str]) -> list[str]:
    return [f"{document.file}: {document.name} is not valid:", *(f"  {problem}" for problem in problems)]


def _pipelines(path: str) -> list[PipelineDocument]:
    pipelines = [
        PipelineDocument(label, document)
        for label, text in _texts(path)
        for document in _documents(label, text)
        if document.get("kind") == KIND
    ]
    if not pipelines:
        raise BadInputError(f"{_label(path)} holds no {KIND}.")
    return pipelines


def _label(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else path


def _texts(path: str) -> Iterator[tuple[str, str]]:
    if path == STANDARD_INPUT:
        yield _label(path), _decoded(_label(path), sys.stdin.buffer.read())
        return
    for file in _files(Path(path)):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BadInputError(f"{file} cannot be read: {error.strerror}.") from error
        yield str(file), _decoded(str(file), content)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    below = (file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    return sorted(file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _decoded(label: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{label} is not YAML: byte {error.start} is no UTF-8.") from error


def _documents(label: str, text: str) -> Iterator[dict[str, Any]]:
    """The documents, and what stands in a List, as kubectl prints it."""
    try:
        documents = [item for item in yaml.load_all(text, _StrictLoader) if isinstance(item, dict)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInputError(f"{label} is not YAML: {error}") from error
    for document in documents:
        items = document.get("items")
        is_list = str(document.get("kind", "")).endswith("List") and isinstance(items, list)
        yield from (item for item in items if isinstance(item, dict)) if is_list and items is not None else [document]


class _StrictLoader(yaml.SafeLoader):
    """A key that is given twice is an error, as for kubectl; YAML's own loader takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(repeated)} given twice", node.start_mark)
        return super().construct_mapping(node, deep)
