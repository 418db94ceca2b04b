"""Sizes of a graph that other components decide, read from their configurations; without torch.

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

# Subfolders whose configurations have them.
SUBFOLDERS = (parts.TEXT_ENCODER, parts.TEXT_ENCODER_2, parts.VAE)


def read_shape_facts(folders: Mapping[str, Path]) -> dict[str, int]:
    """Values of text_length, text_width, channels and pixels_per_latent.

    Args:
        folders: of PARTS, as far as there are any.

    Raises:
        BadInputError: a configuration lacks an entry.
    """
    facts: dict[str, int] = {}
    if parts.TEXT_ENCODER in folders:
        facts |= text_facts(configs.read(folders[parts.TEXT_ENCODER], parts.TEXT_ENCODER))
    if parts.TEXT_ENCODER_2 in folders:
        second = configs.read(folders[parts.TEXT_ENCODER_2], parts.TEXT_ENCODER_2)
        facts = second_text_facts(second, facts.get("text_width", 0)) | {"refiner_text_width": second["hidden_size"]}
    if parts.VAE in folders:
        facts |= vae_facts(configs.read(folders[parts.VAE], parts.VAE))
    return facts


def text_facts(config: Mapping[str, Any]) -> dict[str, int]:
    """Facts of a text encoder's configuration."""
    return {"text_length": config["max_position_embeddings"], "text_width": config["hidden_size"]}


def second_text_facts(config: Mapping[str, Any], first_text_width: int) -> dict[str, int]:
    """Facts of two text encoders, by the second one's configuration.

    Args:
        config: of the second one.
        first_text_width: features per token of the first one; 0 where it is not there.
    """
    first = {"first_text_width": first_text_width, "text_width": first_text_width + config["hidden_size"]}
    return {
        "text_length": config["max_position_embeddings"],
        "pooled_width": config["projection_dim"],
        **(first if first_text_width else {}),
    }


def vae_facts(config: Mapping[str, Any]) -> dict[str, int]:
    """Facts of an autoencoder's configuration."""
    blocks = config["decoder_block_out_channels" if configs.is_tiny(config) else "block_out_channels"]
    return {"channels": config["latent_channels"], "pixels_per_latent": 2 ** (len(blocks) - 1)}


def required_facts(component: Component, shape_facts: Mapping[str, int]) -> dict[str, int]:
    """Facts that the profile of a component needs.

    Only these are recorded, so that whatever else changes in other components leaves the graph alone.
    """
    return {name: shape_facts[name] for name in SHAPED.get(component, ()) if name in shape_facts}


def check_shape_facts(component: Component, facts: Mapping[str, int], shape_facts: Mapping[str, int]) -> None:
    """Compare sizes that a component has itself with those of the other components.

    Raises:
        BadInputError: they contradict each other.
    """
    for name, value in facts.items():
        if shape_facts.get(name, value) != value:
            raise BadInputError(
                Reason.COMPONENT_MISMATCH,
                f"{component} has {name} {value}, the checkpoint around it has {shape_facts[name]}: "
                "these do not belong together",
            )
