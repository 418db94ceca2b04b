"""What the environment says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from examples.demo_support.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parent.parent.parent
TIERS: Final = (4, 20)
SIZES: Final = range(64, 129, 8)
# Follows the words best with the demo's checkpoint (examples/demo-checkpoint/training.json).
GUIDANCE: Final = 2.0
IMAGE_VARIABLES: Final = {
    "operator": "OPERATOR_IMAGE",
    "builder": "BUILDER_IMAGE",
    "triton": "SERVING_IMAGE",
    "demo-hub": "HUB_IMAGE",
}
# Name below the chart's `images` → variable.
TENSORRT_VARIABLES: Final = {
    "tensorrt.builder": "TENSORRT_BUILDER_IMAGE",
    "tensorrt.serving": "TENSORRT_SERVING_IMAGE",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What this run shall do.

    Attributes:
        prompt: What the image shows.
        seed: Start of the noise; the same seed gives the same image.
        steps: Tier of `out/demo.png`: 4 or 20.
        size: Height and width of the images, pixels.
        kubeconfig: Cluster to use; None for the embedded one.
        registry: host:port that takes the images for a cluster of your own; empty where `images` is given.
        images: Name → reference of images that are in a registry already.
        tensorrt_images: The same of those with TensorRT, for the machine's GPU.
        namespace: Namespace of the demo's pipeline and hub.
        out: Folder for the images.
    """

    prompt: str = "a red circle on a blue background"
    seed: int = 7
    steps: int = 20
    size: int = 128
    kubeconfig: Path | None = None
    registry: str = ""
    images: Mapping[str, str]
    tensorrt_images: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "diffusion-demo"
    out: Path = ROOT / "out"


def from_environment(environment: Mapping[str, str], own_kubeconfig: Path) -> Settings:
    """Read PROMPT, SEED, STEPS, SIZE, KUBECONFIG, REGISTRY and the variables of images.

    Args:
        environment: Variables of the process.
        own_kubeconfig: File of the embedded cluster; a KUBECONFIG that names it means the embedded cluster.

    Raises:
        DemoError: A value cannot be used.
    """
    kubeconfig_path = environment.get("KUBECONFIG", "")
    kubeconfig = Path(kubeconfig_path) if kubeconfig_path and Path(kubeconfig_path) != own_kubeconfig else None
    images = {name: environment[key] for name, key in IMAGE_VARIABLES.items() if environment.get(key)}
    settings = Settings(
        prompt=environment.get("PROMPT") or Settings.prompt,
        seed=_number(environment, "SEED", Settings.seed),
        steps=_number(environment, "STEPS", Settings.steps),
        size=_number(environment, "SIZE", Settings.size),
        kubeconfig=kubeconfig,
        registry=environment.get("REGISTRY", ""),
        images=images,
        tensorrt_images={name: environment[key] for name, key in TENSORRT_VARIABLES.items() if environment.get(key)},
    )
    _check(settings)
    return settings


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise DemoError(f"{name} is {text!r}. Set it to a whole number, such as {name}={default}.") from None


def _check(settings: Settings) -> None:
    if settings.steps not in TIERS:
        tiers = " or ".join(str(tier) for tier in TIERS)
        raise DemoError(f"STEPS is {settings.steps}. Set it to {tiers}: those are the tiers of examples/pipeline.yaml.")
    if settings.size not in SIZES:
        raise DemoError(
            f"SIZE is {settings.size}. Set it to a multiple of 8 from {SIZES[0]} to {SIZES[-1]} pixels: "
            "those are the shapes of examples/pipeline.yaml."
        )
    if settings.seed < 0:
        raise DemoError(f"SEED is {settings.seed}. Set it to a number from 0 upwards.")
    missing = [key for name, key in IMAGE_VARIABLES.items() if name not in settings.images]
    if settings.kubeconfig and not settings.registry and missing:
        raise DemoError(
            f"KUBECONFIG names a cluster of your own ({settings.kubeconfig}), which has to pull images."
            "\nSet REGISTRY=host:port to have them built and pushed there,"
            f" or set {', '.join(missing)}.\n"
            "Unset KUBECONFIG to use the embedded cluster."
        )
