"""What is wrong with a build, as far as it can be known before anything is exported; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.components import configs, parts, refiner, shallow_layers, sizes
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import Component, ModelFamily

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusion_contract.spec import Acceleration


def validate_preview_vae(folder: Path, vae: Path) -> None:
    """Compare the autoencoder of previews with that of the images.

    Args:
        folder: of the autoencoder of previews.
        vae: folder of the other one.

    Raises:
        BadInputError: a configuration is not supported, or their latents differ.
    """
    facts, image_facts = (sizes.vae_facts(configs.read(path, parts.VAE)) for path in (folder, vae))
    sizes.check_shape_facts(Component.PREVIEW_DECODER, facts, image_facts)


def validate_refiner(unet: Path, folders: Mapping[str, Path]) -> None:
    """Compare a refiner with its base.

    Args:
        unet: folder of the refiner's UNet.
        folders: of text_encoder_2 and vae.

    Raises:
        BadInputError: it is no refiner, or that of another base.
    """
    config = configs.read(unet, parts.UNET)
    refiner.check_refiner(config, configs.read(folders[parts.TEXT_ENCODER_2], parts.TEXT_ENCODER_2))
    latent = sizes.vae_facts(configs.read(folders[parts.VAE], parts.VAE))
    sizes.check_shape_facts(Component.REFINER, {"channels": config["out_channels"]}, latent)


def validate_models(folders: Mapping[str, Path], control_nets: Mapping[str, Path], family: ModelFamily) -> None:
    """Read all configurations, and compare the widths of text that the models read and make.

    Args:
        folders: of the text encoders, unet and vae.
        control_nets: folders, by the names of their sources.
        family: architecture of all of them.

    Raises:
        BadInputError: a configuration is not supported, or models do not belong together.
    """
    has_statistics = configs.read(folders[parts.VAE], parts.VAE).get(configs.LATENTS_MEAN) is not None
    if has_statistics and family is not ModelFamily.STABLE_DIFFUSION_XL:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"vae/config.json has {configs.LATENTS_MEAN}, which pipelines of {family} do not read: take an autoencoder "
            "of this family",
        )
    text_width = sizes.read_shape_facts(folders)["text_width"]
    unet = configs.read(folders[parts.UNET], parts.UNET)
    configs.check_family(parts.UNET, unet, family)
    readers = {parts.UNET: configs.text_width(parts.UNET, unet)}
    for name, folder in control_nets.items():
        config = configs.read(folder, parts.CONTROLNET)
        configs.check_family(parts.CONTROLNET, config, family)
        readers[name] = configs.text_width(parts.CONTROLNET, config)
    for reader, width in readers.items():
        if width != text_width:
            raise BadInputError(
                Reason.COMPONENT_MISMATCH,
                f"{reader} reads texts with {width} features per token (cross_attention_dim), the text encoder makes "
                f"{text_width} (hidden_size): use models of one family",
            )


def validate_acceleration(unet: Path, acceleration: Acceleration | None) -> None:
    """Compare an acceleration with the UNet.

    Args:
        unet: its folder.
        acceleration: of the spec.

    Raises:
        BadInputError: the UNet cannot be accelerated in this way.
    """
    if acceleration is None:
        return
    config = configs.read(unet, parts.UNET)
    if acceleration.guidance is not None:
        shallow_layers.check_guidance(config)
    if acceleration.deep_cache is not None:
        shallow_layers.check(config, acceleration.deep_cache.layers)
