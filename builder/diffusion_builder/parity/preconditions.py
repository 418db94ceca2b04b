"""What diffusers has pipelines for: the stage parity compares with nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.components import configs, parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.python_models import GENERATE, INPAINT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

# Of a UNet: those of the image's latent, and those with the mask and the masked image beside it.
_INPAINTING = (4, 9)


def require_comparable(
    folders: Mapping[str, Path], tasks: Collection[str], *, ip_adapter: bool, controlled_tasks: Collection[str]
) -> None:
    """Reject what diffusers has no pipeline for.

    Args:
        folders: of unet and vae.
        tasks: of the ensembles.
        ip_adapter: whether an ensemble has the feature.
        controlled_tasks: of the ensembles with ControlNets.

    Raises:
        BadInputError: with the reason, and what can be done.
    """
    config = configs.read(folders[parts.UNET], parts.UNET)
    if INPAINT in tasks and config["in_channels"] not in _INPAINTING:
        raise _unsupported(
            f"inpaint: its pipelines take a UNet of 4 or 9 input channels, this one has {config['in_channels']}"
        )
    if INPAINT in tasks and configs.read(folders[parts.VAE], parts.VAE).get(configs.LATENTS_MEAN) is not None:
        raise _unsupported("inpaint: its pipelines leave the latents_mean of this autoencoder out when they encode")
    unguided = sorted(set(controlled_tasks) - {GENERATE})
    if unguided and config.get("time_cond_proj_dim") is not None:
        raise _unsupported(
            f"{' and '.join(unguided)} with controlnet: these pipelines of it ignore the guidance that this UNet "
            "reads as an embedding (time_cond_proj_dim)"
        )
    if ip_adapter and isinstance(config.get("layers_per_block"), list):
        raise _unsupported("ip_adapter: it cannot weigh an IP-Adapter where layers_per_block of the UNet is a list")


def _unsupported(what: str) -> BadInputError:
    return BadInputError(
        Reason.PARITY_FAILED,
        f"diffusers has nothing to compare with for {what}. Leave that out of pipelines; or build with --no-parity, "
        "and inspect the images yourself",
    )
