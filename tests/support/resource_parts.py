"""Parts of custom resources for tests: sources, targets, and a DiffusionPipeline around them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB = {"huggingFace": {"repo": "demo/shapes", "revision": REVISION}}
SPLIT = {"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}}
GPU = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
SLICE = {"name": "slice", "gpu": {"product": "NVIDIA-A100-SXM4-80GB", "resourceName": "nvidia.com/mig-1g.10gb"}}


@dataclass(frozen=True)
class Refused:
    """A spec that is refused.

    Attributes:
        spec: fields besides those that every spec needs.
        field: that the API server names.
        words: of the API server's message.
    """

    spec: dict[str, Any]
    field: str
    words: str


def pipeline(name: str = "shapes", **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the spec
    """A DiffusionPipeline with these fields besides those that every one needs."""
    return {
        "apiVersion": "diffusion-operator.io/v1alpha1",
        "kind": "DiffusionPipeline",
        "metadata": {"name": name},
        "spec": {"model": {"source": HUB}, "targets": [{"name": "cpu"}], **spec},
    }


def model(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the model
    """A model with these fields besides its source."""
    return {"model": {"source": HUB, **fields}}


def target(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the target
    """A single target for a CPU with these fields."""
    return {"targets": [{"name": "a", **fields}]}


def hub(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of the source
    """A model whose hub repository has these fields."""
    source = copy.deepcopy(HUB)
    source["huggingFace"].update(fields)
    return {"model": {"source": source}}


def variants(*weights: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of a variant
    """A rollout with variants of these weights."""
    one = {"serving": {"image": "t:2"}, **fields}
    return {
        **SPLIT,
        "experiment": {"variants": [{"name": f"v{weight}", "weight": weight, **one} for weight in weights]},
    }
