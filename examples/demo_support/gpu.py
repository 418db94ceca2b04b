"""The machine's GPU in the demo: whether it is used, and what the pipeline says then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from examples.demo_support.settings import ROOT, TENSORRT_VARIABLES
from tools.devcluster.gpus import find_host_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from examples.demo_support.settings import Settings
    from tools.devcluster.gpus import HostGpus

GPU_NODES: Final = ROOT / "examples" / "gpu-nodes.yaml"
_TARGET: Final = "gpu"


@dataclass(frozen=True)
class GpuChoice:
    """What the demo runs on.

    Attributes:
        product: GPU product of the target, as GPU feature discovery names it; empty for the CPU.
        reason: why a GPU that is there is not used; empty where it is used, or where there is none.
    """

    product: str = ""
    reason: str = ""


def choose_gpu(settings: Settings, find: Callable[[], HostGpus | None] = find_host_gpus) -> GpuChoice:
    """Choose the machine's GPU where the embedded cluster can give it to pods and images with TensorRT are named.

    Args:
        settings: of the demo.
        find: looks for the machine's GPUs.
    """
    gpus = None if settings.kubeconfig else find()
    if gpus is None:
        return GpuChoice()
    missing = [variable for name, variable in TENSORRT_VARIABLES.items() if name not in settings.tensorrt_images]
    if missing:
        reason = f"{gpus.product} is not used: set {' and '.join(missing)} (docs/images.md says how to build them)"
        return GpuChoice(reason=reason)
    return GpuChoice(gpus.product)


def on_gpu(document: Mapping[str, Any], product: str) -> dict[str, Any]:
    """The pipeline with one target, this GPU, in half precision."""
    targets = [{"name": _TARGET, "gpu": {"product": product}}]
    return {**document, "spec": {**document["spec"], "precision": "float16", "targets": targets}}
