"""A ControlNet for the demo checkpoint: a silhouette says which shape, how large and where, the prompt says colours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from .denoiser import Bank, Models, Noised, Noiser, encode_bank
from .grading import grade, overlap
from .painter import Painter
from .shapes import draw
from .training import History, Optimizer, Size, Step, recorded, train
from .words import Scene, held_out_scenes

SIZES = (Size(64, 64, 384, 0.6), Size(128, 128, 96, 0.4))
# The bank of the denoiser's training, by this factor smaller: the denoiser has learnt what images look like.
FEWER = 6
PEAK_RATE = 1e-3
# Captions are left out more often than in the denoiser's training, or the shape would be learnt from them alone.
EMPTY = 0.5
STEPS = 20
GUIDANCE = 2.0
# Where and how large silhouettes of the measurement are, in parts of the image: unlike what prompts alone bring.
PLACES = ((0.35, 0.35, 0.2), (0.65, 0.4, 0.25), (0.5, 0.65, 0.28), (0.4, 0.6, 0.18))


class ControlTraining:
    """One training run of a ControlNet; denoiser and text encoder stay as they are."""

    def __init__(self, models: Models, tokenizer: CLIPTokenizer, device: torch.device, steps: int) -> None:
        self._device, self._steps = device, steps
        self._unet = models.unet.to(device).eval().requires_grad_(requires_grad=False)
        self._text = models.text.to(device).eval().requires_grad_(requires_grad=False)
        self.controlnet = ControlNetModel.from_unet(
            self._unet, conditioning_embedding_out_channels=(16, 32, 64, 96), conditioning_channels=3
        )
        self.controlnet.to(device).train()
        self._optimizer = Optimizer(self.controlnet.parameters(), PEAK_RATE, steps)
        self._noiser = Noiser(tokenizer, device, EMPTY)

    def run(self, vae: AutoencoderKL, painter: Painter, shrink: int) -> History:
        """Encode images of every size, then train on them; batches and data are divided by `shrink`."""
        self._optimizer.set_rate(0)
        steps = {size: self._step(encode_bank(vae, painter, size, FEWER * shrink), size, shrink) for size in SIZES}
        history = train("controlnet", steps, self._steps, self._optimizer.set_rate)
        self.controlnet.eval().requires_grad_(requires_grad=False)
        return history

    def _step(self, bank: Bank, size: Size, shrink: int) -> Step:
        count = max(2, size.batch // shrink)

        def step() -> Tensor:
            return self._optimizer.descend(self._loss(bank, count))

        return recorded(step, self._device)

    def _loss(self, bank: Bank, count: int) -> Tensor:
        noised = self._noiser.draw(bank, count)
        silhouettes = (bank.silhouettes[noised.indices].float() / 255).expand(-1, 3, -1, -1)
        with torch.autocast(self._device.type, torch.bfloat16):
            predicted_noise = self._predict(noised, silhouettes)
        return self._noiser.loss(predicted_noise, noised)

    def _predict(self, noised: Noised, silhouettes: Tensor) -> Tensor:
        states = self._text(noised.tokens).last_hidden_state
        inputs = noised.latents, noised.time, states
        down, middle = self.controlnet(*inputs, controlnet_cond=silhouettes, return_dict=False)
        predicted_noise: Tensor = self._unet(
            *inputs, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        return predicted_noise


@dataclass(frozen=True)
class Obedience:
    """How well images follow silhouettes: mean intersection over union, and the fraction with the right colours."""

    overlap: float
    colours: float


def silhouette(scene: Scene, side: int, number: int) -> NDArray[np.uint8]:
    """A scene's shape in white on black, uint8 [side, side, 3], at one of a few places."""
    x, y, radius = PLACES[number % len(PLACES)]
    plain = Scene(scene.shape, "white", "black")
    return draw(plain, side, radius, (x, y))


def controlled(checkpoint: StableDiffusionPipeline, controlnet: ControlNetModel) -> StableDiffusionControlNetPipeline:
    """The checkpoint's pipeline with a ControlNet."""
    pipeline = StableDiffusionControlNetPipeline(**checkpoint.components, controlnet=controlnet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def obedience(pipeline: StableDiffusionControlNetPipeline, side: int, scale: float, count: int = 64) -> Obedience:
    """Paint held-out captions after silhouettes and compare.

    Args:
        pipeline: with the ControlNet.
        side: pixels of the square images.
        scale: of the ControlNet; 0 shows what prompts alone bring.
        count: images, at most 64.
    """
    scenes = held_out_scenes()[:: math.ceil(64 / count)]
    shapes = [silhouette(scene, side, number) for number, scene in enumerate(scenes)]
    control = torch.from_numpy(np.stack(shapes)).permute(0, 3, 1, 2).float() / 255
    images = pipeline(
        [scene.caption for scene in scenes],
        image=control,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        controlnet_conditioning_scale=scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in range(len(scenes))],
        output_type="np",
    ).images
    levels = np.round(images * 255).astype(np.uint8)
    overlaps = [overlap(level, shape[:, :, 0] > 127) for level, shape in zip(levels, shapes, strict=True)]  # noqa: PLR2004 - half
    right = [grade(level, scene.caption).both for level, scene in zip(levels, scenes, strict=True)]
    return Obedience(float(np.mean(overlaps)), float(np.mean(right)))
