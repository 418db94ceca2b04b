"""What a refiner's UNet reads, by its configuration; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_builder.components import configs, parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract import tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIZES = int(tensors.REFINER_TIME_IDS.dims[1])


def refiner_facts(config: Mapping[str, Any]) -> dict[str, int]:
    """Facts of a refiner.

    Args:
        config: of a UNet of Stable Diffusion XL.

    Raises:
        BadInputError: it reads a mask, or other numbers than an original size, a crop and an aesthetic score.
    """
    channels = config["out_channels"]
    if config["in_channels"] != channels:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"refiner: unet/config.json has in_channels {config['in_channels']} with out_channels {channels}; a "
            "refiner reads the latent alone",
        )
    return {
        "channels": channels,
        tensors.REFINER_TRAIT: configs.text_width(parts.UNET, config),
        tensors.POOLED_TRAIT: configs.pooled_width(parts.UNET, config, _SIZES),
    }


def check_refiner(config: Mapping[str, Any], second_text_encoder: Mapping[str, Any]) -> None:
    """Compare a refiner with the second text encoder of its base.

    Args:
        config: of the UNet.
        second_text_encoder: configuration.

    Raises:
        BadInputError: the UNet is of another family, or no refiner.
    """
    addition = config.get("addition_embed_type")
    if addition is None:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            "refiner: unet/config.json (addition_embed_type None) is of the family StableDiffusion: take the refiner "
            "of Stable Diffusion XL, or leave model.refiner out",
        )
    facts = refiner_facts(config)
    widths = facts[tensors.REFINER_TRAIT], facts[tensors.POOLED_TRAIT]
    expected = second_text_encoder["hidden_size"], second_text_encoder["projection_dim"]
    if widths != expected:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"refiner: its UNet reads {widths[0]} features per token and {widths[1]} of a whole prompt, text_encoder_2 "
            f"makes {expected[0]} and {expected[1]}: name the refiner of this checkpoint in model.refiner.source, not "
            "a base",
        )
