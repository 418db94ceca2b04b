"""DDIM: eq. 12 and 16 of arXiv 2010.02502 as diffusers' scheduling_ddim.py writes them. State: the latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .noise import alphas_cumprod
from .prediction import clean_sample, noise
from .table import CallParameters, Row, Schedule, ScheduleRun, tabulate
from .timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings


def ddim(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; with eta each step draws noise."""
    timesteps = spaced(settings, run.steps).round()[run.first_call :]
    cumulated = alphas_cumprod(settings)
    final = 1.0 if settings.set_alpha_to_one else cumulated[0]

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        timestep = int(timesteps[call])
        next_timestep = timestep - settings.num_train_timesteps // run.steps
        alpha, target = cumulated[timestep], cumulated[next_timestep] if next_timestep >= 0 else final
        scales = float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))
        sample = clean_sample(settings, latent, output, *scales)
        variance = run.eta**2 * (1 - target) / (1 - alpha) * (1 - alpha / target)
        direction = np.sqrt(max(1 - target - variance, 0.0)) * noise(settings, latent, output, *scales)
        return [np.sqrt(target) * sample + direction + np.sqrt(variance) * call_noise, sample]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)
