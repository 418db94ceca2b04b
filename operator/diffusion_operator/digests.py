"""Digests: what has the same inputs has the same name."""

import hashlib
import json
from typing import Any

BUILD_FORMAT = 3
"""Part of every Job's name. Raise it when the meaning of a stage's arguments changes; a new builder image
alone never renames a Job, since a finished Job proves an artifact that stays valid."""

KEY_LENGTH = 12
REVISION_LENGTH = 8


def json_digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """SHA-256 of the value as canonical JSON, 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def build_key(stage: str, store: str, inputs: dict[str, Any]) -> str:
    """Key of a build Job, 12 hex digits.

    Args:
        stage: of the builder.
        store: name of the claim that holds the store; a result says nothing about another store.
        inputs: all that decides the result.
    """
    return json_digest({"format": BUILD_FORMAT, "stage": stage, "store": store, "inputs": inputs})[:KEY_LENGTH]


def revision_digest(template: dict[str, Any]) -> str:
    """Revision of a pod template, 8 hex digits: all that one target serves, without the number of pods."""
    return json_digest(template)[:REVISION_LENGTH]
