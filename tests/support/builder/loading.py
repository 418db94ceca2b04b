"""Components loaded from parts, and what diffusers makes of the same inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import UNet2DConditionModel

from diffusion_builder.components.parts import LoadContext, LoraWeights
from diffusion_builder.components.registry import COMPONENTS, Sizes, example
from diffusion_contract.enums import Precision
from diffusion_contract.exports import ExportOptions

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_builder.components.base import LoadedModule
    from diffusion_contract.enums import Component
    from tests.support.builder import parts

SIZES = Sizes(2, 8, 6)
# The libraries have no types.
_Model = Any
_Unet: Any = UNet2DConditionModel


def written(root: Path, writers: dict[str, parts.Write]) -> dict[str, Path]:
    """Write parts; returns the folder of each."""
    for name, write in writers.items():
        write(root / name)
    return {name: root / name for name in writers}


def load(
    component: Component, folders: dict[str, Path], loras: tuple[LoraWeights, ...] = (), **options: object
) -> LoadedModule:
    """Load a component in float32."""
    return COMPONENTS[component].load(
        LoadContext(folders, ExportOptions.model_validate(options), loras), Precision.FLOAT32
    )


def run(
    component: Component, loaded: LoadedModule, sizes: Sizes = SIZES
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Run a module on example inputs; returns those by name, and the output."""
    interface = COMPONENTS[component].interface(loaded.facts)
    inputs = example(interface, loaded, sizes, seed=3)
    with torch.no_grad():
        output = loaded.module(*inputs)
    return {tensor.name: value for tensor, value in zip(interface.inputs, inputs, strict=True)}, output


def unet_of(folder: Path) -> _Model:
    """The UNet as diffusers loads it."""
    return _Unet.from_pretrained(folder, low_cpu_mem_usage=False)


def both(inputs: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Negative ones of all samples, then positive ones, as diffusers orders a batch."""
    return torch.cat([inputs[name][:, 0], inputs[name][:, 1]])


def guided(inputs: dict[str, torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """Classifier-free guidance on the output of a UNet."""
    negative, positive = output.chunk(2)
    return negative + inputs["guidance"][:, :, None, None] * (positive - negative)
