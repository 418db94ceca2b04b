"""What a checkpoint's configurations say about sizes, read without torch.

A component's own graph records only what that component decides. A profile also needs sizes that another one decides:
the denoiser's latent size follows from the VAE, its text length from the text encoder.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def of_checkpoint(folder: Path) -> Mapping[str, int]:
    """Channels, pixels_per_latent, text_length and text_width of a checkpoint in diffusers layout.

    Raises:
        BadInputError: a configuration lacks an entry.
    """
    text = _config(folder, "text_encoder")
    vae = _config(folder, "vae")
    try:
        return {
            "text_length": int(text["max_position_embeddings"]),
            "text_width": int(text["hidden_size"]),
            "channels": int(vae["latent_channels"]),
            "pixels_per_latent": 2 ** (len(vae["block_out_channels"]) - 1),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"config.json of text_encoder or vae lacks an entry or has a wrong one: {error}"
        ) from error


def merge(component: str, own: Mapping[str, int], checkpoint: Mapping[str, int]) -> Mapping[str, int]:
    """Facts of a graph and of the checkpoint around it.

    Raises:
        BadInputError: they contradict each other.
    """
    for name, value in own.items():
        if checkpoint.get(name, value) != value:
            raise BadInputError(
                Reason.COMPONENT_MISMATCH,
                f"{component} has {name} {value}, the checkpoint has {checkpoint[name]}: these do not belong together",
            )
    return {**checkpoint, **own}


def _config(folder: Path, part: str) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / part / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{part}/config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BadInputError(Reason.INVALID_CONFIG, f"{part}/config.json must be a JSON object")
    return config
