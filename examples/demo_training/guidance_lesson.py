"""A denoiser that reads guidance as an embedding, taught by one for few steps: half the work in every step.

The teacher predicts noise twice in every step, without and with the caption, and guidance adds the two up. The student
predicts the sum at once (Meng et al. 2023, arXiv:2210.03142, section 3.1): it gets the guidance scale as an embedding
beside the timestep's, as latent consistency models do, and the caption alone. Strides start where the student's own
have led, so that it learns to mend its errors.
"""

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from .denoiser import Models
from .lessons import (
    GUIDANCE,
    GUIDANCES,
    PACE,
    PACES,
    STRIDES,
    TIMES,
    USUAL,
    StudentTraining,
    ddim_factors,
    guided_noise,
)
from .training import Size, Step, recorded

# Features of the embedded guidance scale.
WIDTH = 64


@dataclass(frozen=True)
class Conditions:
    """Conditions of the samples of one batch.

    Args:
        states: text states of the empty caption and the caption, float [2, B, MAX_TOKENS, width].
        guidance: float [B].
    """

    states: Tensor
    guidance: Tensor


@dataclass(frozen=True)
class Stride:
    """What student and teacher did in one stride.

    Args:
        latents: where it began, float [B, 4, h, w].
        noise: what the teacher predicted there, likewise.
        loss: of the student's prediction, a scalar.
        end: where the student's stride ended, float [B, 4, h, w].
    """

    latents: Tensor
    noise: Tensor
    loss: Tensor
    end: Tensor


class GuidanceTraining(StudentTraining):
    """Training for guidance as an embedding."""

    def __init__(self, models: Models, tokens: Tensor, steps: int) -> None:
        super().__init__(models, make_student, tokens, steps)
        factors = [
            [ddim_factors(self._signal, TIMES - 1 - stride * PACES * PACE, pace) for pace in range(PACES)]
            for stride in range(STRIDES)
        ]
        # [2, STRIDES, PACES]: of latents and of noise, from a stride's start to each of its paces.
        self._factors = torch.tensor(factors, device=self._device).movedim(-1, 0)

    def _step(self, size: Size, count: int) -> Step:
        def step() -> Tensor:
            conditions = self._sample_conditions(count)
            latents = torch.randn(count, 4, size.height // 8, size.width // 8, device=self._device)
            strides = []
            for stride in range(STRIDES):
                strides.append(self._stride(stride, latents, conditions))
                latents = strides[-1].end
            losses = [stride.loss for stride in strides]
            return self._optimizer.descend(torch.stack([*losses, self._between(strides, conditions)]).sum())

        return recorded(step, self._device)

    def _sample_conditions(self, count: int) -> Conditions:
        captions = self._trained[torch.randint(len(self._trained), (count,), device=self._device)]
        nothing = self._states[-1:].expand(count, -1, -1)
        scales = torch.empty(count, device=self._device).uniform_(*GUIDANCES)
        usual = torch.rand(count, device=self._device) < USUAL
        return Conditions(torch.stack([nothing, self._states[captions]]), torch.where(usual, GUIDANCE, scales))

    def _stride(self, number: int, latents: Tensor, conditions: Conditions) -> Stride:
        time = TIMES - 1 - number * PACES * PACE
        times = torch.full((len(latents),), time, device=self._device)
        noise = self._taught(latents, times, conditions)
        prediction = self._predict(latents, times, conditions)
        latent_factor, gain = ddim_factors(self._signal, time, PACES)
        # An error of the noise moves the stride's end by `gain`.
        loss = abs(gain) * functional.mse_loss(prediction, noise)
        return Stride(latents, noise, loss, latent_factor * latents + gain * prediction.detach())

    def _between(self, strides: list[Stride], conditions: Conditions) -> Tensor:
        """Loss at one pace within one stride of each sample, a scalar: more steps than four have to work, too."""
        count = len(conditions.guidance)
        every = torch.arange(count, device=self._device)
        stride = torch.randint(STRIDES, (count,), device=self._device)
        pace = torch.randint(1, PACES, (count,), device=self._device)
        latent_factor, gain = self._factors[:, stride, pace, None, None, None]
        latents, noise = (
            torch.stack(tensors)[stride, every]
            for tensors in ([one.latents for one in strides], [one.noise for one in strides])
        )
        latents = latent_factor * latents + gain * noise
        times = TIMES - 1 - (stride * PACES + pace) * PACE
        return functional.mse_loss(self._predict(latents, times, conditions), self._taught(latents, times, conditions))

    @torch.no_grad()
    def _taught(self, latents: Tensor, times: Tensor, conditions: Conditions) -> Tensor:
        """The teacher's noise with guidance, float32 [B, 4, h, w]."""
        with torch.autocast(self._device.type, torch.bfloat16):
            prediction = self._teacher(
                latents.repeat(2, 1, 1, 1), times.repeat(2), conditions.states.flatten(0, 1)
            ).sample
        return guided_noise(torch.stack(prediction.float().chunk(2)), conditions.guidance[:, None, None, None])

    def _predict(self, latents: Tensor, times: Tensor, conditions: Conditions) -> Tensor:
        """The student's noise, float32 [B, 4, h, w]."""
        embedding = embedded(conditions.guidance)
        with torch.autocast(self._device.type, torch.bfloat16):
            prediction: Tensor = self.student(latents, times, conditions.states[1], timestep_cond=embedding).sample
        return prediction.float()


def make_student(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """The teacher with an embedding of guidance that has no effect yet."""
    student = UNet2DConditionModel.from_config(dict(teacher.config) | {"time_cond_proj_dim": WIDTH})
    student.load_state_dict(teacher.state_dict(), strict=False)
    nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student.to(teacher.device).requires_grad_(requires_grad=True)


def embedded(guidance: Tensor) -> Tensor:
    """What diffusers' pipelines embed guidance as: float [B] to float [B, WIDTH]."""
    embedding: Tensor = get_timestep_embedding(guidance - 1, WIDTH, downscale_freq_shift=1, scale=1000)
    return embedding
