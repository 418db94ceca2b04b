"""One loop over diffusers' schedulers and one over our tables, with the same model and the same seed."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch

from diffusion_builder.components.scheduler_step import SchedulerStep
from diffusion_builder.models.noise import Generator
from diffusion_builder.models.schedule import Schedule, SchedulerSettings, SchedulerType, schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CLASSES: Mapping[SchedulerType, Any] = {
    type_: getattr(diffusers, f"{type_}DiscreteScheduler", None) or getattr(diffusers, f"{type_}Scheduler")
    for type_ in SchedulerType
}
# What every Stable Diffusion checkpoint says, and what its pipeline forces on those that say something else.
CONFIG: Mapping[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True,
}  # fmt: skip
SHAPE = (1, 4, 4, 4)
_SEED = 5
_RANDOM = np.random.default_rng(2)
IMAGE = torch.from_numpy(_RANDOM.standard_normal(SHAPE).astype(np.float32))
# Soft in places.
MASK = torch.from_numpy(np.clip(_RANDOM.uniform(-1, 2, (1, 1, *SHAPE[2:])), 0, 1).astype(np.float32))
_STEP = SchedulerStep()


@dataclass(frozen=True)
class Walk:
    """Latents before and after every call, and the clean samples predicted at them where they are told."""

    latents: list[NDArray[np.float32]] = field(default_factory=list)
    clean: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """What is sampled.

    Args:
        type_: the scheduler.
        steps: of the whole schedule.
        begin: how many are skipped; then the image is where sampling starts.
        eta: of DDIM.
        repaint: whether the image is kept outside of the mask.
        config: of the checkpoint.
    """

    type_: SchedulerType
    steps: int
    begin: int | None = None
    eta: float = 0.0
    repaint: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Schedule:
        settings = SchedulerSettings.from_config(self.type_, {**CONFIG, **self.config})
        return schedule(settings, self.steps, self.begin or 0, self.eta)


def model(model_input: torch.Tensor, timestep: float) -> torch.Tensor:
    """Not linear, mixes pixels, depends on the timestep, and answers as large as noise is."""
    bent = torch.tanh(0.8 * model_input + math.sin(timestep / 300))
    return 1.1 * bent + 0.1 * torch.cos(3 * model_input.flip(-1))


def by_diffusers(case: Case) -> Walk:
    """What the loop of diffusers' pipelines does."""
    scheduler = CLASSES[case.type_].from_config({**CONFIG, **case.config})
    scheduler.set_timesteps(case.steps)
    timesteps = scheduler.timesteps
    if case.begin is not None:
        timesteps = timesteps[case.begin * scheduler.order :]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(case.begin * scheduler.order)
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(SHAPE, generator=generator)
    latent = noise * scheduler.init_noise_sigma
    if case.begin is not None:
        latent = scheduler.add_noise(IMAGE, noise, timesteps[:1])
    parameters = inspect.signature(scheduler.step).parameters
    extra = {name: value for name, value in {"generator": generator, "eta": case.eta}.items() if name in parameters}
    walk = Walk([latent.numpy()])
    for index, timestep in enumerate(timesteps):
        output = model(scheduler.scale_model_input(latent, timestep), float(timestep))
        result = scheduler.step(output, timestep, latent, **extra)
        latent = result.prev_sample
        if case.repaint:
            last = index == len(timesteps) - 1
            known_latent = IMAGE if last else scheduler.add_noise(IMAGE, noise, timesteps[index + 1 : index + 2])
            latent = (1 - MASK) * known_latent + MASK * latent
        walk.latents.append(latent.numpy())
        clean = result.get("denoised", result.get("pred_original_sample"))
        if clean is not None:
            walk.clean.append(clean.numpy())
    return walk


def by_table(case: Case, spare_slots: int = 0) -> Walk:
    """What the unrolled ensemble does, step graph and all."""
    plan = case.plan
    slots = plan.slots + spare_slots
    generator = Generator(_SEED)
    noise = torch.from_numpy(generator.normal(SHAPE))
    latent = noise * plan.initial_scale
    if case.begin is not None:
        latent = plan.first[0] * IMAGE + plan.first[1] * noise
    state = torch.cat([latent[:, None], torch.zeros(1, slots - 1, *SHAPE[1:])], dim=1)
    table, levels = torch.from_numpy(plan.padded(slots))[None], torch.tensor(plan.levels)[None]
    image_and_noise, mask = torch.stack([IMAGE, noise], dim=1), MASK if case.repaint else torch.ones_like(MASK)
    index = torch.zeros((1, 1), dtype=torch.int32)
    model_input, timestep = latent * plan.input_scale, levels[:, 0, :1]
    walk = Walk([latent.numpy()])
    for draws in plan.draws:
        output = model(model_input, float(timestep))
        fresh = torch.from_numpy(generator.normal(SHAPE)) if draws else torch.zeros(SHAPE)
        result = _STEP(state, output, fresh, index, table, levels, image_and_noise, mask)
        state, model_input, timestep, index, latent, clean = result
        walk.latents.append(latent.numpy())
        walk.clean.append(clean.numpy())
    return walk


@dataclass(frozen=True)
class Difference:
    """Largest difference on the way.

    Args:
        absolute: of any latent, as it is.
        relative: in units of the largest value so far, where that exceeds one: the digits that float32 loses in a
            very noisy, large latent are not found again.
        clean: of the predicted clean samples, in the same units; 0 where diffusers does not tell them.
    """

    absolute: float
    relative: float
    clean: float


def difference(case: Case, spare_slots: int = 0) -> Difference:
    """Compare the two loops."""
    actual, expected = by_table(case, spare_slots), by_diffusers(case)
    errors = [float(np.abs(one - other).max()) for one, other in zip(actual.latents, expected.latents, strict=True)]
    sizes = [float(np.abs(latent).max()) for latent in expected.latents]
    units = list(accumulate(sizes, max, initial=1.0))[1:]
    clean = [float(np.abs(one - other).max()) for one, other in zip(actual.clean, expected.clean, strict=False)]
    return Difference(
        max(errors),
        max(error / unit for error, unit in zip(errors, units, strict=True)),
        max((error / units[-1] for error in clean), default=0.0),
    )
