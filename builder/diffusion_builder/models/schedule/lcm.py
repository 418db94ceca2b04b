"""Latent consistency models: algorithm 3 of arXiv 2310.04378 as diffusers' scheduling_lcm.py writes it.

State: the latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .noise import alphas_cumprod
from .prediction import clean_sample
from .table import CallParameters, Floats, Row, Schedule, ScheduleRun, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings

# Standard deviation of clean samples that the boundary condition assumes.
_SIGMA_DATA = 0.5


def lcm(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; each step but the last draws noise."""
    timesteps = _timesteps(settings, run.steps)[run.first_call :]
    cumulated = alphas_cumprod(settings)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        alpha = cumulated[int(timesteps[call])]
        sample = clean_sample(settings, latent, output, float(np.sqrt(alpha)), float(np.sqrt(1 - alpha)))
        scaled = timesteps[call] * settings.timestep_scaling
        whole = scaled**2 + _SIGMA_DATA**2
        denoised = scaled / np.sqrt(whole) * sample + _SIGMA_DATA**2 / whole * latent
        if call + 1 == len(timesteps):
            return [denoised, denoised]
        target = cumulated[int(timesteps[call + 1])]
        return [np.sqrt(target) * denoised + np.sqrt(1 - target) * call_noise, denoised]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)


def _timesteps(settings: SchedulerSettings, steps: int) -> Floats:
    """Evenly spaced among those of the distillation, whatever `timestep_spacing` says."""
    count = settings.original_inference_steps
    distilled = np.arange(count, 0, -1) * (settings.num_train_timesteps // count) - 1
    timesteps: Floats = distilled[np.floor(np.linspace(0, count, steps, endpoint=False)).astype(np.int64)].astype(float)
    return timesteps
