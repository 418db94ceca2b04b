"""The two halves of the KL autoencoder, with the scaling factor inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components import configs, parts, sizes, weights
from diffusion_builder.components.base import DTYPES, LATENT, PIXELS, LoadedModule, TorchModel
from diffusion_contract.enums import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_builder.components.parts import LoadContext

# What diffusers takes when a configuration does not say it: SD 1.4's does not.
_SCALING_FACTOR = 0.18215
# Limits of the log variance, from diffusers' DiagonalGaussianDistribution.
_LOG_VARIANCE = (-30.0, 20.0)


class _Half(nn.Module):
    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model
        self.factor = float(getattr(model.config, "scaling_factor", _SCALING_FACTOR))
        self.shift = float(getattr(model.config, "shift_factor", None) or 0.0)


class VaeDecoder(_Half):
    """latent [B, C, h, w] → decoded_image [B, 3, H, W] in about [-1, 1]."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode the whole batch."""
        unscaled = latent * (1.0 / self.factor) + self.shift
        image: torch.Tensor = self.model.decode(unscaled.to(self.model.dtype), return_dict=False)[0]
        return image.float()


class VaeEncoder(_Half):
    """pixels [B, 3, H, W] → latent_mean, latent_std [B, C, h, w], both scaled.

    diffusers' img2img and inpainting draw `mean + std * noise` from the request's generator, before they draw the
    noise of the first step; with both moments the conditioner does the same. `latent_mean` alone is the deterministic
    encoding.
    """

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode the whole batch."""
        # Not `encode`: the moments are enough, and exp() and scaling happen in float32.
        hidden = self.model.encoder(pixels.to(self.model.dtype))
        moments = hidden if self.model.quant_conv is None else self.model.quant_conv(hidden)
        mean, log_variance = moments.float().chunk(2, dim=1)
        std = torch.exp(0.5 * torch.clamp(log_variance, *_LOG_VARIANCE))
        return (mean - self.shift) * self.factor, std * self.factor


def load_decoder(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read the decoder of an AutoencoderKL."""
    return _load(material, precision, VaeDecoder, "encoder")


def load_encoder(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read the encoder of an AutoencoderKL."""
    return _load(material, precision, VaeEncoder, "decoder")


def _load(
    material: LoadContext, precision: Precision, half: Callable[[TorchModel], nn.Module], other: str
) -> LoadedModule:
    from diffusers import AutoencoderKL

    folder = material.folders[parts.VAE]
    config = configs.read(folder, parts.VAE)
    # The checkpoint itself says that it overflows in half; bfloat16 has float32's range.
    if config.get("force_upcast") and precision is Precision.FLOAT16:
        precision = Precision.FLOAT32
    model = weights.diffusers_model(AutoencoderKL, folder, DTYPES[precision])
    setattr(model, other, None)
    return LoadedModule(half(model), sizes.vae_facts(config), {}, LATENT | PIXELS, precision)
