"""Euler: algorithm 2 of arXiv 2206.00364 without churn and correction (scheduling_euler_discrete.py).

State: the latent, variance-exploding; the model is given it scaled to unit variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusion_builder.schedule.noise import Levels, followed_by_last, karras, sigmas_at, timesteps_at
from diffusion_builder.schedule.prediction import derivative
from diffusion_builder.schedule.table import Course, Floats, Row, Schedule, tabulate
from diffusion_builder.schedule.timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusion_builder.schedule.settings import SchedulerSettings


def euler(settings: SchedulerSettings, steps: int) -> Schedule:
    """Schedule of one slot and one call a step."""
    timesteps, levels = exploding_levels(settings, steps)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output = rows
        change = levels.sigmas[call + 1] - levels.sigmas[call]
        return [latent + change * derivative(settings, latent, output, levels, call)]

    course = Course(steps, timesteps, input_scales(levels.sigmas[:-1]), initial_scale(settings, levels))
    return tabulate(course, 1, advance)


def exploding_levels(settings: SchedulerSettings, steps: int) -> tuple[Floats, Levels]:
    """Timesteps [N] and noise levels [N+1] of the samplers that keep a variance-exploding latent."""
    timesteps = spaced(settings, steps).astype(np.float32).astype(np.float64)
    sigmas = sigmas_at(settings, timesteps)
    if settings.use_karras_sigmas:
        sigmas = karras(sigmas[-1], sigmas[0], steps)
        timesteps = timesteps_at(settings, sigmas)
    return timesteps, followed_by_last(settings, sigmas)


def initial_scale(settings: SchedulerSettings, levels: Levels) -> float:
    """Standard deviation of the first latent."""
    top = float(levels.sigmas[0])
    return float(np.sqrt(top**2 + 1)) if settings.timestep_spacing == "leading" else top


def input_scales(sigmas: Floats) -> Floats:
    """Factors that give latents at these noise levels unit variance."""
    scales: Floats = 1 / np.sqrt(sigmas**2 + 1)
    return scales
