"""Sizes that the components around one decide, read from their configurations; without torch.

A graph keeps these open. A profile of TensorRT needs them: the denoiser's latent size follows from the VAE, its text
length from the text encoder. They become facts of the exported graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_builder.components import configs, parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.exports import SHAPED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusion_contract.enums import Component

# Parts that are asked.
PARTS = (parts.TEXT_ENCODER, parts.VAE)


def read(folders: Mapping[str, Path]) -> dict[str, int]:
    """What is known of text_length, text_width, channels and pixels_per_latent.

    Args:
        folders: of PARTS, as far as there are any.

    Raises:
        BadInputError: a configuration lacks an entry.
    """
    known: dict[str, int] = {}
    if parts.TEXT_ENCODER in folders:
        known |= of_text(configs.read(folders[parts.TEXT_ENCODER], parts.TEXT_ENCODER))
    if parts.VAE in folders:
        known |= of_vae(configs.read(folders[parts.VAE], parts.VAE))
    return known


def of_text(config: Mapping[str, Any]) -> dict[str, int]:
    """What a text encoder's configuration decides."""
    return {"text_length": config["max_position_embeddings"], "text_width": config["hidden_size"]}


def of_vae(config: Mapping[str, Any]) -> dict[str, int]:
    """What an autoencoder's configuration decides."""
    return {"channels": config["latent_channels"], "pixels_per_latent": 2 ** (len(config["block_out_channels"]) - 1)}


def needed(component: Component, around: Mapping[str, int]) -> dict[str, int]:
    """Those of them that a component's profile needs.

    Only these are recorded, so that whatever else changes around a component leaves its graph alone.
    """
    return {name: around[name] for name in SHAPED.get(component, ()) if name in around}


def check(component: Component, own: Mapping[str, int], around: Mapping[str, int]) -> None:
    """Compare what a component says itself with what is around it.

    Raises:
        BadInputError: they contradict each other.
    """
    for name, value in own.items():
        if around.get(name, value) != value:
            raise BadInputError(
                Reason.COMPONENT_MISMATCH,
                f"{component} has {name} {value}, the checkpoint around it has {around[name]}: "
                "these do not belong together",
            )
