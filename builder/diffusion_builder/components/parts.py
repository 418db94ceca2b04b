"""Which folders of which sources a component is made of, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusion_contract.tensors import Component

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusion_builder.components.options import ExportOptions

TEXT_ENCODER = "text_encoder"
IMAGE_ENCODER = "image_encoder"
UNET = "unet"
VAE = "vae"
CONTROLNET = "controlnet"
IP_ADAPTER = "ip_adapter"
LORA = "lora"
SAFETY_CHECKER = "safety_checker"

# The folder with the weights that a component is named by; None for one without weights.
MAIN_PART: Mapping[Component, str | None] = {
    Component.TEXT_ENCODER: TEXT_ENCODER,
    Component.IMAGE_ENCODER: IMAGE_ENCODER,
    Component.VAE_ENCODER: VAE,
    Component.CONTROLNET: CONTROLNET,
    Component.CONTROL_OFF: UNET,
    Component.DENOISER: UNET,
    Component.SCHEDULER_STEP: None,
    Component.VAE_DECODER: VAE,
    Component.SAFETY_CHECKER: SAFETY_CHECKER,
}


@dataclass(frozen=True)
class Lora:
    """A LoRA to merge.

    Args:
        folder: holds one safetensors file.
        weight: how much of it is added.
    """

    folder: Path
    weight: float


@dataclass(frozen=True)
class Material:
    """What a component is loaded from.

    Args:
        folders: part name to folder; parts that the sources lack are missing.
        options: what was asked for.
        loras: to merge, in order.
        around: sizes that the components around it decide; see `around`.
    """

    folders: Mapping[str, Path]
    options: ExportOptions
    loras: tuple[Lora, ...] = ()
    around: Mapping[str, int] = field(default_factory=dict)
