"""JSON objects as the API server and the builder write them."""

import json
from typing import Any

JsonObject = dict[str, Any]


def parse_json_object(text: str | None) -> JsonObject:
    """The object in the text; empty when there is none or it cannot be read."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
