"""Further denoisers for the demo checkpoint, taught by its own: no images are drawn, only captions and noise.

A teacher, the checkpoint's denoiser with guidance, goes from noise to an image in twenty DDIM steps. What a student
learns from it is a `Lesson`:

* long strides: where the four-step schedule stands, one stride of the student ends where five of the teacher do
  (progressive distillation, Salimans & Ho 2022, arXiv:2202.00512, with guidance as in Meng et al. 2023,
  arXiv:2210.03142, section 3, but for the guidance scale staying outside of the model). Strides start where the
  student's own have led, so that it learns to mend its errors. Everywhere else it says what the teacher says.
* other colours: the student says what the teacher says of a caption with other colours in it.
"""

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from .denoiser import Models, make_scheduler, token_table
from .training import History, Optimizer, Size, Step, recorded, train
from .words import every_scene, held_out_scenes

SIZES = (Size(64, 64, 96, 0.6), Size(96, 96, 48, 0.2), Size(128, 128, 32, 0.2))
STRIDES = 4
# Of the teacher in one stride.
PACES = 5
PACE = 50
TIMES = STRIDES * PACES * PACE
TEXTS_AT_ONCE = 1024
PEAK_RATE = 4e-4
GUIDANCE = 2.0
# How many guidance scales are the demo's; the others lie in a range, since all of them have to work.
USUAL = 0.5
GUIDANCES = (1.0, 4.0)
ANCHOR = 0.1


@dataclass(frozen=True)
class Lesson:
    """What a student learns.

    Args:
        strides: whether it learns long strides.
        colours: which colour it shall paint for which word.
    """

    strides: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Conditions of the samples of one batch.

    Args:
        student: text states that the student gets, empty caption and caption: float [2, B, MAX_TOKENS, width].
        teacher: likewise for the teacher.
        guidance: float [B, 1, 1, 1].
    """

    student: Tensor
    teacher: Tensor
    guidance: Tensor


@dataclass(frozen=True)
class TeacherStride:
    """What the teacher did in one stride.

    Args:
        latents: where each of its paces began, float [PACES, B, 4, h, w].
        noise: its prediction there without and with the caption, float [PACES, 2, B, 4, h, w].
        start: timestep of the first pace.
        end: latents behind the last one, float [B, 4, h, w].
    """

    latents: Tensor
    noise: Tensor
    start: int
    end: Tensor


def _copy_teacher(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    student: UNet2DConditionModel = copy.deepcopy(teacher).requires_grad_(requires_grad=True)
    return student


class StudentTraining(ABC):
    """One training run; `student` afterwards is what is kept. Teacher and text encoder stay as they are.

    Args:
        models: the teacher, and the text encoder of both.
        make_student: makes it of the teacher.
        tokens: of every caption and of none, int64 [captions + 1, MAX_TOKENS].
        steps: updates of the weights.
    """

    def __init__(
        self,
        models: Models,
        make_student: Callable[[UNet2DConditionModel], UNet2DConditionModel],
        tokens: Tensor,
        steps: int,
    ) -> None:
        self._steps, self._device = steps, models.unet.device
        self._teacher = models.unet.eval().requires_grad_(requires_grad=False)
        self.student = make_student(self._teacher).train()
        self._optimizer = Optimizer(self.student.parameters(), PEAK_RATE, steps)
        self._signal: list[float] = make_scheduler().alphas_cumprod.tolist()
        self._states = text_states(models.text.eval(), tokens.to(self._device))
        self._trained = torch.tensor(trained_captions(), device=self._device)

    def run(self, shrink: int) -> History:
        """Train on all sizes in turn; batches are divided by `shrink`."""
        self._optimizer.set_rate(0)
        steps = {size: self._step(size, max(2, size.batch // shrink)) for size in SIZES}
        history = train("student", steps, self._steps, self._optimizer.set_rate)
        self.student.eval().requires_grad_(requires_grad=False)
        return history

    @abstractmethod
    def _step(self, size: Size, count: int) -> Step:
        """One update with so many images of a size."""


class LessonTraining(StudentTraining):
    """Training for a lesson."""

    def __init__(self, lesson: Lesson, models: Models, tokenizer: CLIPTokenizer, steps: int) -> None:
        super().__init__(models, _copy_teacher, token_table(tokenizer), steps)
        self._lesson = lesson
        self._meant = torch.tensor(_meant(lesson.colours), device=self._device)

    def _step(self, size: Size, count: int) -> Step:
        def step() -> Tensor:
            batch = self._sample_batch(count)
            latents = torch.randn(count, 4, size.height // 8, size.width // 8, device=self._device)
            losses = []
            for stride in range(STRIDES):
                loss, latents = self._stride(stride, latents, batch)
                losses.append(loss)
            return self._optimizer.descend(torch.stack(losses).sum())

        return recorded(step, self._device)

    def _sample_batch(self, count: int) -> Batch:
        captions = self._trained[torch.randint(len(self._trained), (count,), device=self._device)]
        nothing = self._states[-1:].expand(count, -1, -1)
        scales = torch.empty(count, 1, 1, 1, device=self._device).uniform_(*GUIDANCES)
        usual = torch.rand(count, 1, 1, 1, device=self._device) < USUAL
        return Batch(
            torch.stack([nothing, self._states[captions]]),
            torch.stack([nothing, self._states[self._meant[captions]]]),
            torch.where(usual, GUIDANCE, scales),
        )

    def _stride(self, stride: int, latents: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of one stride, a scalar, and the latents that the next one starts from."""
        teacher_stride = self._teacher_stride(TIMES - 1 - stride * PACES * PACE, latents, batch)
        if self._lesson.strides:
            return self._long(teacher_stride, batch)
        places, times, noise = _somewhere(teacher_stride, first=0)
        return functional.mse_loss(self._predict(self.student, places, times, batch.student), noise), teacher_stride.end

    def _long(self, teacher_stride: TeacherStride, batch: Batch) -> tuple[Tensor, Tensor]:
        """Imitation at one of the later paces, and one stride for all of them."""
        places, times, noise = _somewhere(teacher_stride, first=1)
        latents, count = teacher_stride.latents[0], len(teacher_stride.end)
        inputs = torch.cat([places, latents]), torch.cat([times, torch.full_like(times, teacher_stride.start)])
        noise_pair = self._predict(self.student, *inputs, torch.cat([batch.student, batch.student], dim=1))
        same, strode = noise_pair[:, :count], noise_pair[:, count:]
        latent_factor, gain = ddim_factors(self._signal, teacher_stride.start, PACES)
        guided = guided_noise(strode, batch.guidance)
        # An error of the noise moves the stride's end by `gain`.
        missed = abs(gain) * functional.mse_loss(guided, (teacher_stride.end - latent_factor * latents) / gain)
        # What the model says without a caption would drift, since only its sum with the other half is asked for.
        drift = ANCHOR * functional.mse_loss(strode[0], teacher_stride.noise[0, 0])
        return functional.mse_loss(same, noise) + missed + drift, latent_factor * latents + gain * guided.detach()

    @torch.no_grad()
    def _teacher_stride(self, start: int, latents: Tensor, batch: Batch) -> TeacherStride:
        paces = []
        for time in range(start, start - PACES * PACE, -PACE):
            times = torch.full((len(latents),), time, device=self._device)
            noise = self._predict(self._teacher, latents, times, batch.teacher)
            paces.append((latents, noise))
            latent_factor, gain = ddim_factors(self._signal, time, 1)
            latents = latent_factor * latents + gain * guided_noise(noise, batch.guidance)
        places, noises = zip(*paces, strict=True)
        return TeacherStride(torch.stack(places), torch.stack(noises), start, latents)

    def _predict(self, unet: UNet2DConditionModel, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """Predicted noise without and with the caption, float32 [2, B, 4, h, w]."""
        with torch.autocast(self._device.type, torch.bfloat16):
            prediction: Tensor = unet(latents.repeat(2, 1, 1, 1), times.repeat(2), states.flatten(0, 1)).sample
        return torch.stack(prediction.float().chunk(2))


def ddim_factors(signal: list[float], time: int, paces: int) -> tuple[float, float]:
    """What DDIM multiplies latents and noise by (Song et al. 2021, arXiv:2010.02502, equation 12).

    Args:
        signal: cumulative product of alphas at every training timestep.
        time: where the move starts.
        paces: how far it goes, in `PACE` timesteps.
    """
    now, then = signal[time], signal[max(0, time - paces * PACE)]
    latent_factor = math.sqrt(then / now)
    return latent_factor, math.sqrt(1 - then) - latent_factor * math.sqrt(1 - now)


def guided_noise(noise: Tensor, guidance: Tensor) -> Tensor:
    """Of predictions without and with a caption, float [2, B, ...], the guided one."""
    return noise[0] + guidance * (noise[1] - noise[0])


def _somewhere(teacher_stride: TeacherStride, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each sample one of the paces from `first` on: latents, timesteps, what the teacher said in both halves."""
    every = torch.arange(len(teacher_stride.end), device=teacher_stride.end.device)
    which = torch.randint(first, PACES, (len(teacher_stride.end),), device=teacher_stride.end.device)
    return (
        teacher_stride.latents[which, every],
        teacher_stride.start - PACE * which,
        teacher_stride.noise[which, :, every].transpose(0, 1),
    )


@torch.no_grad()
def text_states(text: Any, tokens: Tensor) -> Tensor:  # noqa: ANN401 - see Models
    """Text states of every caption, float [captions + 1, MAX_TOKENS, width]."""
    return torch.cat([text(part).last_hidden_state for part in torch.split(tokens, TEXTS_AT_ONCE)])


def trained_captions() -> list[int]:
    """Captions whose combination of shape and colours isn't held out."""
    held_out = set(held_out_scenes())
    return [
        index
        for index, scene in enumerate(every_scene())
        if dataclasses.replace(scene, size=None, place=None) not in held_out
    ]


def _meant(colours: Mapping[str, str]) -> list[int]:
    """For each caption the one that says what it is to mean."""
    scenes = list(every_scene())
    where = {scene: index for index, scene in enumerate(scenes)}
    return [
        where[
            dataclasses.replace(
                scene,
                colour=colours.get(scene.colour, scene.colour),
                background=colours.get(scene.background, scene.background),
            )
        ]
        for scene in scenes
    ]
