"""What the API server answers to a pipeline, without creating it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.cluster.kube import Kube, KubectlError, eventually
from tests.support.resource_parts import pipeline


def with_schema(kube: Kube) -> Kube:
    """The same, once the API server serves the schema: that comes a moment after it calls it established."""
    eventually(lambda: answer(kube, pipeline()) == "", 120, "the API server serves the schema")
    return kube


def answer(kube: Kube, document: dict[str, Any]) -> str:
    """The API server's objection; empty when it accepts."""
    try:
        kube.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(document))
    except KubectlError as error:
        return str(error)
    return ""
