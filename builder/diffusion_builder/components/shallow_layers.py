"""Layers of a UNet that every call computes where deep features are used again; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping


def check(config: Mapping[str, Any], layers: int) -> None:
    """Reject a UNet whose deep features cannot be used again.

    Args:
        config: of the UNet.
        layers: of the last up block that every call computes.

    Raises:
        BadInputError: it has fewer, or reads guidance as an embedding.
    """
    check_guidance(config)
    present = _layers_per_block(config) + 1
    if layers > present:
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"{parts.UNET}/config.json: the first block has {present - 1} layers, so that branches 0 to {present - 1} "
            f"can be computed in every call, not {layers - 1}: use a smaller acceleration.deepCache.branch",
        )


def check_guidance(config: Mapping[str, Any]) -> None:
    """Reject a UNet that reads guidance as an embedding: it is called once for a pair of prompts as it is.

    Raises:
        BadInputError: with what to do.
    """
    width = config.get("time_cond_proj_dim")
    if width is not None:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{parts.UNET}/config.json: acceleration is not supported for a UNet that reads guidance as an embedding "
            f"(time_cond_proj_dim {width}), which needs few steps as it is: leave acceleration out",
        )


def _layers_per_block(config: Mapping[str, Any]) -> int:
    """Layers of the first down block; the last up block has one more."""
    layers = config["layers_per_block"]
    return int(layers[0] if isinstance(layers, list) else layers)
