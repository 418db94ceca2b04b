"""DDPM: eq. 7 of arXiv 2006.11239 as diffusers' scheduling_ddpm.py writes it. State: the latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .noise import alphas_cumprod
from .prediction import clean_sample
from .table import CallParameters, Row, Schedule, ScheduleRun, tabulate
from .timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings

# diffusers takes logarithms of variances.
_SMALLEST_VARIANCE = 1e-20


def ddpm(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; each step draws noise, except one that starts at timestep 0."""
    timesteps = spaced(settings, run.steps).round()[run.first_call :]
    cumulated = alphas_cumprod(settings)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        timestep = int(timesteps[call])
        alpha = cumulated[timestep]
        target = cumulated[int(timesteps[call + 1])] if call + 1 < len(timesteps) else np.float64(1)
        sample = clean_sample(settings, latent, output, float(np.sqrt(alpha)), float(np.sqrt(1 - alpha)))
        beta = 1 - alpha / target
        mean = (np.sqrt(target) * beta * sample + np.sqrt(alpha / target) * (1 - target) * latent) / (1 - alpha)
        small = max((1 - target) / (1 - alpha) * beta, _SMALLEST_VARIANCE)
        deviation = np.sqrt(beta if settings.variance_type == "fixed_large" else small)
        return [mean + (deviation if timestep > 0 else 0.0) * call_noise, sample]

    return tabulate(CallParameters.discrete(timesteps, cumulated), 1, advance)
