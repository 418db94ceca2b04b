"""Heun: algorithm 1 of arXiv 2206.00364 (scheduling_heun_discrete.py), two denoiser calls for each step but the last.

State: the latent, and during the second call of a step the mean of the latents before and after its Euler step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .euler import exploding, exploding_course
from .prediction import clean_exploding
from .table import Row, Schedule, ScheduleRun, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings


def heun(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of two slots and 2 N - 1 calls for N steps."""
    single, levels = exploding(settings, run)
    # The second call of a step is at the level that the step goes to, which the next step starts from.
    visited = (np.arange(2 * len(single.timesteps) - 1) + 1) // 2

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, mean, output, _ = rows
        step, second = divmod(call, 2)
        change = levels.sigmas[step + 1] - levels.sigmas[step]
        sample = clean_exploding(settings, latent, output, levels, int(visited[call]))
        slope = (latent - sample) / levels.sigmas[visited[call]]
        if second:
            # before + change * (first slope + slope) / 2, and after = before + change * first slope
            return [mean + change / 2 * slope, 0 * mean, sample]
        after = latent + change * slope
        return [after, (latent + after) / 2, sample]

    course = exploding_course(single.timesteps[visited], levels.sigmas[visited], single.initial_scale)
    return tabulate(course, 2, advance)
