"""Configurations, judged before any weights are read; without torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_Types = tuple[type, ...]
_POSITIVE: _Types = (int,)
# What is read here or by the contract. The libraries would silently put a default for an entry that is missing, and
# then build another model than the weights are for.
_REQUIRED: Mapping[str, Mapping[str, _Types]] = {
    parts.TEXT_ENCODER: {
        "hidden_size": _POSITIVE,
        "max_position_embeddings": _POSITIVE,
        "num_hidden_layers": _POSITIVE,
        "vocab_size": _POSITIVE,
    },
    parts.IMAGE_ENCODER: {
        "hidden_size": _POSITIVE,
        "image_size": _POSITIVE,
        "patch_size": _POSITIVE,
        "projection_dim": _POSITIVE,
    },
    parts.UNET: {
        "in_channels": _POSITIVE,
        "out_channels": _POSITIVE,
        "block_out_channels": (list,),
        "cross_attention_dim": (int, list),
    },
    parts.VAE: {"latent_channels": _POSITIVE, "block_out_channels": (list,)},
    parts.CONTROLNET: {
        "in_channels": _POSITIVE,
        "block_out_channels": (list,),
        "conditioning_embedding_out_channels": (list,),
        "cross_attention_dim": (int, list),
    },
    parts.SAFETY_CHECKER: {"projection_dim": _POSITIVE},
}
# Entries that give a UNet further inputs, which nothing here could feed.
_UNSERVED = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)


def read(folder: Path, part: str) -> Mapping[str, Any]:
    """Read and judge `config.json` of a part.

    Raises:
        BadInputError: not readable, an entry is missing or of another type, or asks for inputs that are not served.
    """
    name = f"{part}/config.json"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} must be a JSON object")
    for entry, types in _REQUIRED[part].items():
        _check_entry(name, entry, config.get(entry), types)
    scale = config.get("scaling_factor", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or scale <= 0:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name}: scaling_factor is {scale!r}, a positive number is needed")
    if part in (parts.UNET, parts.CONTROLNET):
        _check_served(name, config)
    if part == parts.SAFETY_CHECKER:
        _check_vision(name, config.get("vision_config"))
    return config


def text_width(name: str, config: Mapping[str, Any]) -> int:
    """Features per token that the cross attention of a UNet or ControlNet reads.

    Raises:
        BadInputError: it differs from block to block.
    """
    width = config["cross_attention_dim"]
    widths = set(width) if isinstance(width, list) else {width}
    if len(widths) != 1:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{name}/config.json: cross_attention_dim is {width}; one width for all is served"
        )
    return int(widths.pop())


def _check_entry(name: str, entry: str, value: object, types: _Types) -> None:
    if value is None:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} lacks {entry}: take the file that belongs to the weights")
    numbers = value if isinstance(value, list) else [value]
    sound = all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in numbers)
    if not isinstance(value, types) or not numbers or not sound:
        wanted = " or ".join("a list of positive integers" if kind is list else "a positive integer" for kind in types)
        raise BadInputError(Reason.INVALID_CONFIG, f"{name}: {entry} is {value!r}, {wanted} is needed")


def _check_vision(name: str, config: object) -> None:
    if not isinstance(config, dict):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} lacks vision_config, the model that looks at pictures")
    for entry in ("hidden_size", "image_size", "patch_size"):
        _check_entry(f"{name}: vision_config", entry, config.get(entry), _POSITIVE)


def _check_served(name: str, config: Mapping[str, Any]) -> None:
    for entry in _UNSERVED:
        if config.get(entry) is not None:
            raise BadInputError(
                Reason.UNSUPPORTED_COMPONENT,
                f"{name} has {entry} {config[entry]!r}: models with that input are not served",
            )
