"""What tests of sources share: progress that nobody reads, and what an artifact holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusion_builder.store import Artifact

UNET = "unet/diffusion_pytorch_model.safetensors"


def ignore(_name: str, _fraction: float) -> None:
    return None


def files_of(artifact: Artifact) -> set[str]:
    return set(artifact.manifest.files)
