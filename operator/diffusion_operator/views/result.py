"""A Job's result with only what the contract says: it was written by a container, of whatever version."""

import math
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from diffusion_contract.enums import Stage
from diffusion_contract.limits import is_digest
from diffusion_contract.results import result_type
from diffusion_operator.json_objects import JsonObject

GARBAGE_COLLECTION: Mapping[str, Any] = {"dryRun": bool, "freedBytes": int, "deleted": int, "retained": int}
STAGES: Mapping[str, Stage] = {str(stage): stage for stage in Stage}


def checked_result(stage: str, result: JsonObject) -> JsonObject:
    """The result without fields of another type than the contract's; a field that it does not know is kept.

    Args:
        stage: of the Job's label.
        result: that the builder reported.
    """
    types = _types(STAGES.get(stage))
    fitting = {name: value for name, value in result.items() if name not in types or _fits(value, types[name])}
    if not is_digest(fitting.get("digest", "")):
        fitting.pop("digest", None)
    return fitting


@cache  # Evaluating the annotations takes longer than all else that a Job's view needs.
def _types(stage: Stage | None) -> Mapping[str, Any]:
    return get_type_hints(result_type(stage)) | dict(GARBAGE_COLLECTION)


def _fits(value: Any, type_: Any) -> bool:  # noqa: ANN401 - any JSON value and its type
    origin = get_origin(type_)
    if origin is list:
        return isinstance(value, list) and all(_fits(entry, get_args(type_)[0]) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(entry, get_args(type_)[1]) for entry in value.values())
    if origin is UnionType:
        return any(_fits(value, one) for one in get_args(type_))
    if type_ is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, type_) and (type_ is bool or not isinstance(value, bool))
