"""What the API server answers to a pipeline, without creating it."""

from __future__ import annotations

import json
from typing import Any

from tests.support.cluster.kube import Kube, KubectlError, eventually

REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB = {"huggingFace": {"repo": "demo/shapes", "revision": REVISION}}


def with_schema(kube: Kube) -> Kube:
    """The same, once the API server serves the schema: that comes a moment after it calls it established."""
    eventually(lambda: answer(kube, pipeline()) == "", 120, "the API server serves the schema")
    return kube


def pipeline(name: str = "shapes", **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the spec
    return {
        "apiVersion": "diffusion-operator.io/v1alpha1",
        "kind": "DiffusionPipeline",
        "metadata": {"name": name},
        "spec": {"model": {"source": HUB}, "targets": [{"name": "cpu"}], **spec},
    }


def answer(kube: Kube, document: dict[str, Any]) -> str:
    """The API server's objection; empty when it accepts."""
    try:
        kube.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(document))
    except KubectlError as error:
        return str(error)
    return ""
