"""The image autoencoder: a KL VAE with four latent channels at an eighth of the resolution."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from .painter import Painter
from .training import History, Optimizer, Size, Step, recorded, train

SIZES = (
    Size(64, 64, 256, 0.6),
    Size(96, 96, 128, 0.2),
    Size(128, 128, 64, 0.2),
)
PEAK_RATE = 1e-3
# Enough for latents of about unit scale; more of it costs sharpness.
KL_WEIGHT = 2e-4


def make_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder, 1.1 million parameters."""
    return AutoencoderKL(
        block_out_channels=(32, 48, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
    )


def train_autoencoder(painter: Painter, device: torch.device, steps: int, shrink: int) -> tuple[AutoencoderKL, History]:
    """Train an autoencoder on drawn images; its `scaling_factor` gives the latents unit variance.

    Args:
        painter: draws the images.
        device: where to train.
        steps: how many updates.
        shrink: divides the batch sizes, for a trial without a GPU.
    """
    model = make_autoencoder().to(device).train()
    optimizer = Optimizer(model.parameters(), PEAK_RATE, steps)

    def step_for(size: Size) -> Step:
        def step() -> Tensor:
            pixels = painter.paint(max(2, size.batch // shrink), size.height, size.width).pixels
            with torch.autocast(device.type, torch.bfloat16):
                loss = _loss(model, pixels)
            return optimizer.descend(loss)

        return recorded(step, device)

    optimizer.set_rate(0)
    history = train("autoencoder", {size: step_for(size) for size in SIZES}, steps, optimizer.set_rate)
    model.eval().requires_grad_(requires_grad=False)
    model.register_to_config(scaling_factor=round(1 / _spread(model, painter), 4))
    return model, history


def reconstruction_psnr(model: AutoencoderKL, painter: Painter, side: int) -> float:
    """Mean over 256 new images of side x side pixels, in dB of the 0..1 range."""
    pixels = painter.paint(256, side, side).pixels
    with torch.no_grad():
        again = model.decode(model.encode(pixels).latent_dist.mode()).sample
    errors = functional.mse_loss(again.clamp(-1, 1), pixels, reduction="none").mean(dim=(1, 2, 3)) / 4
    return float((-10 * torch.log10(errors)).mean())


def _loss(model: AutoencoderKL, pixels: Tensor) -> Tensor:
    latents = model.encode(pixels).latent_dist
    again = model.decode(latents.mean + latents.std * torch.randn_like(latents.mean)).sample.float()
    kl = 0.5 * (latents.mean**2 + latents.var - 1 - latents.logvar).float().mean()
    loss: Tensor = functional.l1_loss(again, pixels) + functional.mse_loss(again, pixels) + KL_WEIGHT * kl
    return loss


def _spread(model: AutoencoderKL, painter: Painter) -> float:
    with torch.no_grad():
        return float(model.encode(painter.paint(1024, 64, 64).pixels).latent_dist.mode().std())
