"""The one reader of what a person writes: a DiffusionPipeline, or a spec alone.

`diffusion-operator validate` and `diffusion-builder build --spec` give the API server's answer, since they read with
the models that the CRD is generated from, in its strictness: no conversion of types, JSON's names only, null is absent.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from diffusion_contract.base import RULE_ERROR, Rule
from diffusion_contract.limits import PIPELINE_PATTERN
from diffusion_contract.spec.local import EXTENSION, LocalSource
from diffusion_contract.spec.pipeline import DiffusionPipelineSpec

GROUP, VERSION, KIND = "diffusion-operator.io", "v1alpha1", "DiffusionPipeline"
API_VERSION = f"{GROUP}/{VERSION}"
NAME_RULE = Rule(
    f"self.metadata.name.matches('{PIPELINE_PATTERN}')",
    "metadata.name must start with a letter, hold only a-z, 0-9 and '-', and have at most 38 characters, "
    "since Services and Deployments are named after it",
    lambda name: re.fullmatch(PIPELINE_PATTERN, name) is not None,
)
_FIELDS = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
MAX_PROBLEMS = 10
UNKNOWN = "Extra inputs are not permitted"
"""Pydantic's words about a field that does not exist."""
_LARGEST_INTEGER = 2**63


class InvalidSpecError(ValueError):
    """What a person wrote is not valid.

    Args:
        problems: each with the path of its field.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_pipeline(document: Mapping[str, Any]) -> DiffusionPipelineSpec:
    """The spec of a whole DiffusionPipeline.

    Raises:
        InvalidSpecError: the API server would reject it.
    """
    problems = tuple(_head_problems(document))
    if problems:
        raise InvalidSpecError(problems)
    return read_spec(document["spec"])


def read_local(body: object) -> DiffusionPipelineSpec:
    """A spec alone, for a build on this machine: sources may be local, and without targets it is built for the CPU.

    Raises:
        InvalidSpecError: it is not valid.
    """
    if isinstance(body, Mapping):
        body = {"targets": [{"name": "cpu"}], **_normalized(body)}
    return _read(body, "", {EXTENSION: LocalSource})


def read_spec(body: object) -> DiffusionPipelineSpec:
    """The `spec` of a DiffusionPipeline.

    Raises:
        InvalidSpecError: the API server would reject it.
    """
    return _read(body, "spec", {})


def unknown_fields(body: object) -> tuple[str, ...]:
    """Paths of the fields in a `spec` that do not exist; whatever else is wrong with it does not matter."""
    try:
        _read(body, "spec", {})
    except InvalidSpecError as error:
        suffix = f": {UNKNOWN}"
        return tuple(problem.removesuffix(suffix) for problem in error.problems if problem.endswith(suffix))
    return ()


def problems_of(error: ValidationError, prefix: str = "") -> tuple[str, ...]:
    """What pydantic complains about, one line for each field, in the API's paths."""
    lines = dict.fromkeys(_line(item, prefix) for item in error.errors())
    return tuple(lines)[:MAX_PROBLEMS]


def _read(body: object, prefix: str, context: dict[str, Any]) -> DiffusionPipelineSpec:
    try:
        # As JSON: in strict mode only its types count, so that "4" is no number and yes is no text.
        text = json.dumps(_normalized(body), default=str)
        return DiffusionPipelineSpec.model_validate_json(
            text, strict=True, by_alias=True, by_name=False, context=context
        )
    except ValidationError as error:
        raise InvalidSpecError(problems_of(error, prefix)) from error


def _head_problems(document: Mapping[str, Any]) -> Iterator[str]:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    expected = {"apiVersion": API_VERSION, "kind": KIND}
    for field, value in expected.items():
        if document.get(field) != value:
            yield f"{field}: is {document.get(field)!r}, {value} is expected"
    if not NAME_RULE.holds(name if isinstance(name, str) else ""):
        yield f"metadata.name: {NAME_RULE.message}"
    if "spec" not in document:
        yield "spec: Field required"
    for field in sorted(map(str, document.keys() - _FIELDS)):
        yield f"{field}: {UNKNOWN}"


def _line(item: ErrorDetails, prefix: str) -> str:
    below = item["ctx"].get("path", "") if item["type"] == RULE_ERROR else ""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in item["loc"])
    path = f"{prefix}{''.join(steps)}{below}".removeprefix(".")
    text = item["msg"].removeprefix("Value error, ")
    return f"{path}: {text}" if path else text


def _normalized(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """As the API server reads JSON: a field that is null is not given, and 1.0 is an integer."""
    if isinstance(value, Mapping):
        return {name: _normalized(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_normalized(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_INTEGER:
        return int(value)
    return value
