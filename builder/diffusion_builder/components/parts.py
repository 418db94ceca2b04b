"""Inputs of a component, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusion_contract.subfolders import (
    CONTROLNET,
    IMAGE_ENCODER,
    IP_ADAPTER,
    LORA,
    SAFETY_CHECKER,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    VAE,
)
from diffusion_contract.subfolders import WEIGHTS as MAIN_PART

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusion_contract.exports import ExportOptions

__all__ = [
    "CONTROLNET",
    "IMAGE_ENCODER",
    "IP_ADAPTER",
    "LORA",
    "MAIN_PART",
    "SAFETY_CHECKER",
    "TEXT_ENCODER",
    "TEXT_ENCODER_2",
    "UNET",
    "VAE",
    "LoadContext",
    "LoraWeights",
]  # fmt: skip


@dataclass(frozen=True)
class LoraWeights:
    """A LoRA to merge.

    Args:
        folder: holds one safetensors file.
        weight: how much of it is added.
    """

    folder: Path
    weight: float


@dataclass(frozen=True)
class LoadContext:
    """Inputs of a component: subfolders, options, LoRAs.

    Args:
        folders: part name to folder; parts that the sources lack are missing.
        options: what was requested.
        loras: to merge, in order.
        sizes: that other components decide; see `sizes`.
    """

    folders: Mapping[str, Path]
    options: ExportOptions
    loras: tuple[LoraWeights, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
