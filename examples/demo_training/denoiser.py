"""The denoiser and the text encoder, trained together on latents that were encoded once."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .painter import Painter
from .tokenizer import MAX_TOKENS
from .training import History, Optimizer, Size, Step, recorded, train
from .words import every_scene

SIZES = (
    Size(64, 64, 512, 0.50),
    Size(96, 96, 256, 0.20),
    Size(128, 128, 128, 0.20),
    Size(64, 96, 256, 0.05),
    Size(96, 64, 256, 0.05),
)
# Pixels of all images that are encoded; each size gets its share.
BANK_PIXELS = 800_000 * 64 * 64
ENCODED_AT_ONCE = 64 * 64 * 2048
PEAK_RATE = 1e-3
TEXT_WIDTH = 128
# How often the caption is left out, which is what guidance needs.
EMPTY = 0.1
SNR_CAP = 5.0
AVERAGE_EVERY = 10
AVERAGE_KEEP = 0.99


@dataclass(frozen=True)
class Bank:
    """Encoded images of one size.

    Args:
        latents: bfloat16 [N, 4, H/8, W/8] of unit variance.
        captions: int64 [N].
        silhouettes: uint8 [N, 1, H, W].
    """

    latents: Tensor
    captions: Tensor
    silhouettes: Tensor


@dataclass(frozen=True)
class Models:
    """What is trained together."""

    unet: UNet2DConditionModel
    text: Any  # a CLIPTextModel, whose decorators hide the signatures of torch's Module


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule; steps spaced from the very end, which is what makes few of them work."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def make_models(tokenizer: CLIPTokenizer) -> Models:
    """Untrained models: 7.1 million parameters in the denoiser, 0.6 in the text encoder."""
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(96, 128, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )
    end = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
    )
    return Models(unet, CLIPTextModel(text))


@dataclass(frozen=True)
class Noised:
    """Part of a bank on its way to noise.

    Args:
        indices: int64 [B], which of the bank.
        tokens: int64 [B, MAX_TOKENS], of the captions or of none.
        time: int64 [B], training timesteps.
        noise: float32 [B, 4, H/8, W/8].
        latents: float32, likewise, with as much of the noise as the timestep says.
    """

    indices: Tensor
    tokens: Tensor
    time: Tensor
    noise: Tensor
    latents: Tensor


class Noiser:
    """What every training of the denoiser draws, and how it judges a prediction of the noise.

    Args:
        tokenizer: of the captions.
        device: where banks are.
        empty: how often the caption is left out.
    """

    def __init__(self, tokenizer: CLIPTokenizer, device: torch.device, empty: float) -> None:
        self._device, self._empty = device, empty
        self._tokens = token_table(tokenizer).to(device)
        self._signal = make_scheduler().alphas_cumprod.to(device)
        self._weight = epsilon_weight(self._signal)

    def draw(self, bank: Bank, count: int) -> Noised:
        """Some images of a bank at random timesteps."""
        indices = torch.randint(len(bank.captions), (count,), device=self._device)
        clean = bank.latents[indices].float()
        empty = torch.rand(count, 1, device=self._device) < self._empty
        tokens = torch.where(empty, self._tokens[-1:], self._tokens[bank.captions[indices]])
        time = torch.randint(len(self._signal), (count,), device=self._device)
        signal = self._signal[time][:, None, None, None]
        noise = torch.randn_like(clean)
        return Noised(indices, tokens, time, noise, signal.sqrt() * clean + (1 - signal).sqrt() * noise)

    def loss(self, predicted_noise: Tensor, noised: Noised) -> Tensor:
        """Weighted mean square error of the predicted noise, a scalar."""
        errors = functional.mse_loss(predicted_noise.float(), noised.noise, reduction="none").mean(dim=(1, 2, 3))
        return (errors * self._weight[noised.time]).mean()


class DenoiserTraining:
    """One training run; `models` afterwards are the running average, which is what is kept."""

    def __init__(self, tokenizer: CLIPTokenizer, device: torch.device, steps: int, shrink: int) -> None:
        self._device, self._steps, self._shrink = device, steps, shrink
        live = make_models(tokenizer)
        self._live = Models(live.unet.to(device).train(), live.text.to(device).train())
        self.models = copy.deepcopy(self._live)
        self._parameters = [*self._live.unet.parameters(), *self._live.text.parameters()]
        self._averages = [*self.models.unet.parameters(), *self.models.text.parameters()]
        self._optimizer = Optimizer(self._parameters, PEAK_RATE, steps)
        self._noiser = Noiser(tokenizer, device, EMPTY)

    def run(self, vae: AutoencoderKL, painter: Painter) -> History:
        """Encode images of every size, then train on them."""
        self._optimizer.set_rate(0)
        steps = {size: self._step(encode_bank(vae, painter, size, self._shrink), size) for size in SIZES}
        history = train("denoiser", steps, self._steps, self._before)
        self.models.unet.eval().requires_grad_(requires_grad=False)
        self.models.text.eval().requires_grad_(requires_grad=False)
        return history

    def _step(self, bank: Bank, size: Size) -> Step:
        count = max(2, size.batch // self._shrink)

        def step() -> Tensor:
            return self._optimizer.descend(self._loss(bank, count))

        return recorded(step, self._device)

    def _loss(self, bank: Bank, count: int) -> Tensor:
        noised = self._noiser.draw(bank, count)
        with torch.autocast(self._device.type, torch.bfloat16):
            states = self._live.text(noised.tokens).last_hidden_state
            predicted_noise = self._live.unet(noised.latents, noised.time, states).sample
        return self._noiser.loss(predicted_noise, noised)

    def _before(self, step: int) -> None:
        self._optimizer.set_rate(step)
        if step % AVERAGE_EVERY == 0:
            # Early on the average would remember the random start for too long.
            keep = min(AVERAGE_KEEP, step / (step + 100))
            with torch.no_grad():
                for average, parameter in zip(self._averages, self._parameters, strict=True):
                    average.lerp_(parameter, 1 - keep)


def epsilon_weight(signal: Tensor) -> Tensor:
    """Loss weight of each timestep for a model that predicts noise.

    Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556), times 1/sqrt(snr) where noise prevails: an error of the
    clean latent then pulls equally hard at every noisy step. Those steps decide the colours.

    Args:
        signal: float [T], the cumulative product of alphas.
    """
    snr = signal / (1 - signal)
    weight: Tensor = snr.clamp(max=SNR_CAP) / snr * snr.clamp(max=1).rsqrt()
    return weight


def encode_bank(vae: AutoencoderKL, painter: Painter, size: Size, shrink: int) -> Bank:
    """Draw and encode the images of one size."""
    area = size.height * size.width
    at_once = max(2, ENCODED_AT_ONCE // area // shrink)
    latents, captions, silhouettes = [], [], []
    for _ in range(math.ceil(BANK_PIXELS * size.share / shrink / area / at_once)):
        batch = painter.paint(at_once, size.height, size.width)
        with torch.no_grad(), torch.autocast(batch.pixels.device.type, torch.bfloat16):
            mean = vae.encode(batch.pixels).latent_dist.mode()
        latents.append((mean.float() * vae.config.scaling_factor).bfloat16())
        captions.append(batch.captions)
        silhouettes.append((batch.silhouettes * 255).round().to(torch.uint8))
    return Bank(torch.cat(latents), torch.cat(captions), torch.cat(silhouettes))


def token_table(tokenizer: CLIPTokenizer) -> Tensor:
    """Tokens of every caption, int64 [captions + 1, MAX_TOKENS]; the last row is the empty caption."""
    captions = [scene.caption for scene in every_scene()]
    tokens: Tensor = tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    return tokens
