"""The two halves of an autoencoder, with the scaling factor inside.

AutoencoderKL gives a distribution of latents, AutoencoderTiny (TAESD) one latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components import configs, parts, sizes, weights
from diffusion_builder.components.base import DTYPES, LATENT, PIXELS, LoadedModule, TorchModel
from diffusion_contract.enums import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from diffusion_builder.components.parts import LoadContext

# What diffusers takes when a configuration does not say it: SD 1.4's does not.
_SCALING_FACTOR = 0.18215
# Limits of the log variance, from diffusers' DiagonalGaussianDistribution.
_LOG_VARIANCE = (-30.0, 20.0)


class _Half(nn.Module):
    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model
        factor = float(getattr(model.config, "scaling_factor", _SCALING_FACTOR))
        means, stds = (getattr(model.config, name, None) for name in (configs.LATENTS_MEAN, configs.LATENTS_STD))
        # A latent is (what the encoder gives - shift) * factor.
        self.factor: float | torch.Tensor
        self.shift: float | torch.Tensor
        if means and stds:
            # Of each channel; diffusers' pipelines leave the shift of all out then.
            self.register_buffer("factor", factor / torch.tensor(stds)[:, None, None], persistent=False)
            self.register_buffer("shift", torch.tensor(means)[:, None, None], persistent=False)
        else:
            self.factor = factor
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


class TinyVaeEncoder(_Half):
    """pixels [B, 3, H, W] → latent_mean, latent_std [B, C, h, w], scaled; no deviation.

    diffusers' pipelines take its latents as they are, and draw nothing for them.
    """

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode the whole batch."""
        latent = self.model.encoder(pixels.to(self.model.dtype)).float()
        mean = (latent - self.shift) * self.factor
        return mean, torch.zeros_like(mean)


def load_decoder(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read the decoder of an autoencoder."""
    config = configs.read(material.folders[parts.VAE], parts.VAE)
    return _load(material, precision, VaeDecoder, "encoder", sizes.vae_facts(config))


def load_encoder(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read the encoder of an autoencoder."""
    config = configs.read(material.folders[parts.VAE], parts.VAE)
    facts = sizes.vae_facts(config)
    if configs.is_tiny(config):
        return _load(material, precision, TinyVaeEncoder, "decoder", facts | {"deterministic_encoder": 1})
    return _load(material, precision, VaeEncoder, "decoder", facts)


def _load(
    material: LoadContext,
    precision: Precision,
    half: Callable[[TorchModel], nn.Module],
    other: str,
    facts: Mapping[str, int],
) -> LoadedModule:
    import diffusers

    folder = material.folders[parts.VAE]
    config = configs.read(folder, parts.VAE)
    is_tiny = configs.is_tiny(config)
    # The checkpoint itself says that it overflows in half; bfloat16 has float32's range. The tiny class never does.
    if config.get("force_upcast") and precision is Precision.FLOAT16 and not is_tiny:
        precision = Precision.FLOAT32
    model_class = getattr(diffusers, configs.TINY_VAE if is_tiny else configs.KL_VAE)
    model = weights.diffusers_model(model_class, folder, DTYPES[precision])
    setattr(model, other, None)
    return LoadedModule(half(model), facts, {}, LATENT | PIXELS, precision)
