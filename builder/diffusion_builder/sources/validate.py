"""Validate files that were copied into a folder, before anything loads them."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import layout, names, safetensors_header, stand_ins
from diffusion_builder.sources.layout import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EVERYTHING = Selection()
_INDEX = ".safetensors.index.json"


def validate_texts(folder: Path, files: Sequence[str], selection: Selection) -> None:
    """Validate everything but the weights.

    Args:
        folder: holds the files.
        files: all of the source, also those that are not there yet.
        selection: what the source is.

    Raises:
        BadInputError: a file is unsafe, or the source is not supported.
    """
    for name in files:
        if name.endswith(".json"):
            config = read_json(folder, name)
            if selection.component is not None and PurePosixPath(name).name == "config.json":
                layout.check_component(name, config)
            if name.endswith(_INDEX):
                _check_shards(name, config, frozenset(files))
        elif not names.is_weights(name):
            _check_text(folder, name)
    if selection.component is None:
        layout.check_index(read_json(folder, layout.MODEL_INDEX))


def validate_weights(folder: Path, files: Sequence[str], _selection: Selection) -> None:
    """Validate the weights by their headers.

    Raises:
        BadInputError: a file is no sound safetensors file.
    """
    for name in files:
        if names.is_weights(name):
            stand_ins.check(folder / name, name)
            safetensors_header.check(folder / name, name)


def inspect_source(folder: Path, selection: Selection = _EVERYTHING) -> Mapping[str, Any]:
    """Validate a fetched source and compute each part's content digest.

    Returns:
        `pipelineClass` (empty for a single component) and `subfolders`: name to digest of the content.

    Raises:
        BadInputError: it is unsafe or incomplete.
    """
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    validate_texts(folder, files, selection)
    validate_weights(folder, files, selection)
    subfolders: dict[str, str] = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        contents = {path.name: digests.file_digest(path) for path in part.iterdir() if path.is_file()}
        subfolders[part.name] = digests.json_digest(contents)
    pipeline = "" if selection.component else read_json(folder, layout.MODEL_INDEX)["_class_name"]
    return {"pipelineClass": pipeline, "subfolders": subfolders}


def read_json(folder: Path, name: str) -> Mapping[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        BadInputError: too large, not JSON, no object, or asking for code.
    """
    path = folder / name
    names.check_sizes({name: path.stat().st_size})
    stand_ins.check(path, name)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} is nested too deeply to be a configuration") from error
    except ValueError as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} is not JSON: {error}") from error
    layout.check_config(name, value)
    result: Mapping[str, Any] = value
    return result


def _check_text(folder: Path, name: str) -> None:
    names.check_sizes({name: (folder / name).stat().st_size})
    stand_ins.check(folder / name, name)
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except ValueError as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} is not text in UTF-8: {error}") from error
    if "\0" in text:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} is not text: it holds NUL")


def _check_shards(name: str, index: Mapping[str, Any], present: frozenset[str]) -> None:
    """The index says which files are loaded: they must be ours, and be there."""
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} has no weight_map from tensors to files")
    for shard in sorted(set(shards.values())):
        path = f"{PurePosixPath(name).parent}/{shard}"
        if "/" in shard or "\\" in shard or not names.is_weights(shard):
            raise BadInputError(
                Reason.UNSAFE_PATH, f"{name} takes weights from {shard!r}: a safetensors file beside it is expected"
            )
        if path not in present:
            raise BadInputError(Reason.MISSING_FILE, f"{name} names {shard}, which is not there")
