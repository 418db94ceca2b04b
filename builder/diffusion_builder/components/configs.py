"""Configurations, validated before any weights are read; without torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import ModelFamily
from diffusion_contract.tensors import TIME_IDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KL_VAE, TINY_VAE = VAE_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
"""Autoencoders by the class names of their configurations."""

LATENTS_MEAN, LATENTS_STD = _STATISTICS = ("latents_mean", "latents_std")
"""Statistics of each channel of the latents that a denoiser was trained with, in an autoencoder's configuration."""

_Types = tuple[type, ...]
_POSITIVE: _Types = (int,)
_LIST: _Types = (list,)
_VISION: Mapping[str, int] = {"hidden_size": 768, "image_size": 224, "patch_size": 32}
# What is read here or by the contract, with what the library's configuration class takes where a file does not say:
# tools write only what differs from it. Here and not asked of the classes, since these come with torch.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    parts.TEXT_ENCODER: {
        "hidden_size": 512, "max_position_embeddings": 77, "num_hidden_layers": 12, "vocab_size": 49408,
    },
    parts.TEXT_ENCODER_2: {
        "hidden_size": 512, "max_position_embeddings": 77, "num_hidden_layers": 12, "vocab_size": 49408,
        "projection_dim": 512,
    },
    parts.IMAGE_ENCODER: {**_VISION, "projection_dim": 512},
    parts.UNET: {
        "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
        "cross_attention_dim": 1280,
    },
    parts.VAE: {"latent_channels": 4, "block_out_channels": [64]},
    TINY_VAE: {
        "latent_channels": 4, "encoder_block_out_channels": [64] * 4, "decoder_block_out_channels": [64] * 4,
        "num_encoder_blocks": [1, 3, 3, 3], "num_decoder_blocks": [3, 3, 3, 1], "upsampling_scaling_factor": 2,
    },
    parts.CONTROLNET: {
        "in_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
        "conditioning_embedding_out_channels": [16, 32, 96, 256], "cross_attention_dim": 1280,
    },
    parts.SAFETY_CHECKER: {"projection_dim": 512, "vision_config": {}},
}  # fmt: skip
# Entries that are lists, or may be; all others are positive integers.
_TYPES: Mapping[str, _Types] = {
    "block_out_channels": _LIST,
    "conditioning_embedding_out_channels": _LIST,
    "cross_attention_dim": (int, list),
    "layers_per_block": (int, list),
    "encoder_block_out_channels": _LIST,
    "decoder_block_out_channels": _LIST,
    "num_encoder_blocks": _LIST,
    "num_decoder_blocks": _LIST,
}
# Where a part's entries are inside of the configuration of a whole CLIP model.
_INNER: Mapping[str, str] = {
    parts.TEXT_ENCODER: "text_config",
    parts.TEXT_ENCODER_2: "text_config",
    parts.IMAGE_ENCODER: "vision_config",
}
# How a UNet or ControlNet of Stable Diffusion XL says that it reads a pooled embedding and sizes.
_ADDITION = "addition_embed_type"
_TEXT_TIME = "text_time"
_COLORS = 3
_LARGEST = 3.4e38
# Entries that give a UNet further inputs, which nothing here could feed.
_UNSUPPORTED = (
    "class_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
)
# Features of guidance as an embedding; 2 halves of at least 2 features each.
_GUIDANCE_WIDTH = "time_cond_proj_dim"
_MIN_GUIDANCE_WIDTH = 4


def read(folder: Path, part: str) -> Mapping[str, Any]:
    """Read and validate `config.json` of a part.

    Returns:
        Its entries, and the library's defaults for those of `DEFAULTS` that are missing.

    Raises:
        BadInputError: not readable, an entry is of another type, or asks for inputs that are not supported.
    """
    name = f"{part}/config.json"
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} cannot be read: {error}") from error
    content = _object(name, content)
    inner = _INNER.get(part)
    if inner is not None and content.get(inner) is not None:
        name = f"{name}: {inner}"
        content = _object(name, content[inner])
    defaults = DEFAULTS[TINY_VAE if part == parts.VAE and is_tiny(content) else part]
    config: dict[str, Any] = {**defaults, **content}
    for entry in defaults.keys() - {"vision_config"}:
        _check_entry(name, entry, config[entry], _TYPES.get(entry, _POSITIVE))
    if part == parts.VAE:
        _check_vae(name, config)
    if part in (parts.UNET, parts.CONTROLNET):
        _check_supported(name, config)
        _check_guidance_width(name, config, is_read=part == parts.UNET)
    if part == parts.SAFETY_CHECKER:
        config["vision_config"] = _vision(name, config)
    return config


def _object(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} must be a JSON object")
    return value


def is_tiny(config: Mapping[str, Any]) -> bool:
    """Whether an autoencoder is an AutoencoderTiny; without a class name it is an AutoencoderKL."""
    return config.get("_class_name") == TINY_VAE


def _check_vae(name: str, config: Mapping[str, Any]) -> None:
    class_name = config.get("_class_name", KL_VAE)
    if class_name not in VAE_CLASSES:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{name} is of class {class_name!r}; supported are: {', '.join(VAE_CLASSES)}",
        )
    if is_tiny(config):
        _check_tiny_vae(name, config)
    scale, shift = config.get("scaling_factor", 1.0), config.get("shift_factor")
    if not _is_number(scale) or scale <= 0:
        raise BadInputError(Reason.INVALID_CONFIG, f"{name}: scaling_factor is {scale!r}, a positive number is needed")
    if shift is not None and not _is_number(shift):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name}: shift_factor is {shift!r}, a number is needed")
    for entry in ("in_channels", "out_channels"):
        _check_channels(name, entry, config)
    _check_statistics(name, config)


def _check_statistics(name: str, config: Mapping[str, Any]) -> None:
    """Mean and deviation of each latent channel: both or none, as diffusers reads them."""
    channels = config["latent_channels"]
    for entry in _STATISTICS:
        values, other = config.get(entry), _STATISTICS[1 - _STATISTICS.index(entry)]
        if values is None:
            continue
        if is_tiny(config) or config.get(other) is None:
            why = "autoencoders of this class have none" if is_tiny(config) else f"{other} is missing beside it"
            raise BadInputError(Reason.UNSUPPORTED_COMPONENT, f"{name} has {entry}: {why}")
        is_list = isinstance(values, list) and len(values) == channels and all(map(_is_number, values))
        if not is_list or (entry == LATENTS_STD and min(values) <= 0):
            kind = "positive numbers" if entry == LATENTS_STD else "numbers"
            raise BadInputError(Reason.INVALID_CONFIG, f"{name}: {entry} is {values!r}, {channels} {kind} are needed")


def _check_tiny_vae(name: str, config: Mapping[str, Any]) -> None:
    lengths = {len(config[entry]) for entry in DEFAULTS[TINY_VAE] if isinstance(config[entry], list)}
    if len(lengths) != 1:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{name}: the lists of blocks of encoder and decoder must have the same length"
        )
    factor = config["upsampling_scaling_factor"]
    if factor != 2:  # noqa: PLR2004 - what the encoder halves
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{name}: upsampling_scaling_factor is {factor}, but the encoder halves sizes: 2 is supported",
        )


def _is_number(value: object) -> bool:
    """Whether it is a finite number that float32 holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _check_channels(name: str, entry: str, config: Mapping[str, Any]) -> None:
    if config.get(entry, _COLORS) != _COLORS:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{name}: {entry} is {config[entry]!r}; images of {_COLORS} channels are supported",
        )


def text_width(name: str, config: Mapping[str, Any]) -> int:
    """Features per token that the cross attention of a UNet or ControlNet reads.

    Raises:
        BadInputError: it differs from block to block.
    """
    width = config["cross_attention_dim"]
    widths = set(width) if isinstance(width, list) else {width}
    if len(widths) != 1:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{name}/config.json: cross_attention_dim is {width}; one width for all is supported"
        )
    return int(widths.pop())


def pooled_width(part: str, config: Mapping[str, Any], numbers: int = int(TIME_IDS.dims[1])) -> int:
    """Features of the pooled embedding that a UNet or ControlNet of Stable Diffusion XL reads.

    Args:
        part: `unet` or `controlnet`, for messages.
        config: of a model that reads one.
        numbers: that it reads beside it.

    Raises:
        BadInputError: it reads other numbers beside the embedding than an original size, a crop and a target size.
    """
    name = f"{part}/config.json"
    for entry in ("addition_time_embed_dim", "projection_class_embeddings_input_dim"):
        _check_entry(name, entry, config.get(entry), _POSITIVE)
    width = config["projection_class_embeddings_input_dim"]
    pooled = int(width - numbers * config["addition_time_embed_dim"])
    if pooled <= 0:
        raise BadInputError(
            Reason.INVALID_CONFIG,
            f"{name}: projection_class_embeddings_input_dim {width} has no room for {numbers} numbers of "
            f"{config['addition_time_embed_dim']} features and an embedding",
        )
    return pooled


def check_family(part: str, config: Mapping[str, Any], family: ModelFamily) -> None:
    """Compare the architecture of a UNet or ControlNet with the requested one.

    Args:
        part: `unet` or `controlnet`, for messages.
        config: of the model.
        family: that is requested.

    Raises:
        BadInputError: it is of the other family.
    """
    has_pooled = config.get(_ADDITION) is not None
    actual = ModelFamily.STABLE_DIFFUSION_XL if has_pooled else ModelFamily.STABLE_DIFFUSION
    if actual is not family:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"{part}/config.json ({_ADDITION} {config.get(_ADDITION)!r}) is of the family {actual}, "
            f"{family} is requested: set model.family to {actual}, or take a model of {family}",
        )


def _check_entry(name: str, entry: str, value: object, types: _Types) -> None:
    if value is None:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{name} lacks {entry}, which is null: take the file that belongs to the weights"
        )
    numbers = value if isinstance(value, list) else [value]
    sound = all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in numbers)
    if not isinstance(value, types) or not numbers or not sound:
        kinds = " or ".join("a list of positive integers" if kind is list else "a positive integer" for kind in types)
        raise BadInputError(Reason.INVALID_CONFIG, f"{name}: {entry} is {value!r}, {kinds} is needed")


def _vision(name: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model that looks at images; as transformers' CLIPConfig, an old `vision_config_dict` counts as a whole."""
    entry = "vision_config_dict" if config.get("vision_config_dict") is not None else "vision_config"
    value = config[entry]
    vision = {**_VISION, **_object(f"{name}: {entry}", {} if value is None else value)}
    for number in _VISION:
        _check_entry(f"{name}: {entry}", number, vision[number], _POSITIVE)
    return vision


def _check_guidance_width(name: str, config: Mapping[str, Any], *, is_read: bool) -> None:
    width = config.get(_GUIDANCE_WIDTH)
    if width is None:
        return
    if not is_read:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{name} has {_GUIDANCE_WIDTH} {width!r}: ControlNets with that input are not supported",
        )
    _check_entry(name, _GUIDANCE_WIDTH, width, _POSITIVE)
    if width < _MIN_GUIDANCE_WIDTH:
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{name}: {_GUIDANCE_WIDTH} is {width}, at least {_MIN_GUIDANCE_WIDTH} are needed"
        )


def _check_supported(name: str, config: Mapping[str, Any]) -> None:
    layers, blocks = config["layers_per_block"], config["block_out_channels"]
    if isinstance(layers, list) and len(layers) != len(blocks):
        raise BadInputError(
            Reason.INVALID_CONFIG,
            f"{name}: layers_per_block has {len(layers)} entries, block_out_channels {len(blocks)}",
        )
    _check_channels(name, "conditioning_channels", config)
    if config.get(_ADDITION) not in (None, _TEXT_TIME):
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{name} has {_ADDITION} {config[_ADDITION]!r}: models with that input are not supported",
        )
    for entry in _UNSUPPORTED:
        if config.get(entry) is not None:
            raise BadInputError(
                Reason.UNSUPPORTED_COMPONENT,
                f"{name} has {entry} {config[entry]!r}: models with that input are not supported",
            )
