"""JSON objects as the API server and the builder write them."""

import json
import re
from typing import Any

JsonObject = dict[str, Any]
ESCAPE = "\\u"
MAX_DIGITS = re.compile(r"[0-9]{1,9}")


def parse_json_object(text: str | None) -> JsonObject:
    """The object in the text; empty when there is none or it cannot be read."""
    try:
        value = json.loads(text or "{}")
        if ESCAPE in (text or ""):
            # Half of a surrogate pair is JSON, and no text that could be written anywhere.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def as_object(value: Any) -> JsonObject:  # noqa: ANN401 - any JSON value
    """The value when it is an object, else an empty one: what others write may be absent, null or something else."""
    return value if isinstance(value, dict) else {}


def as_objects(value: Any) -> list[JsonObject]:  # noqa: ANN401 - any JSON value
    """The objects in a list; empty for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def as_text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """The value when it is a text; Kubernetes writes null for a time that it does not know."""
    return value if isinstance(value, str) else ""


def as_count(value: Any, default: int = 0) -> int:  # noqa: ANN401 - any JSON value
    """The value when it is a number of things, or its digits; else the default."""
    if isinstance(value, str) and MAX_DIGITS.fullmatch(value) is not None:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
