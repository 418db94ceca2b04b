"""Heun: algorithm 1 of arXiv 2206.00364 (scheduling_heun_discrete.py), two denoiser calls for each step but the last.

State: the latent, and during the second call of a step the mean of the latents before and after its Euler step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusion_builder.schedule.euler import exploding_levels, initial_scale, input_scales
from diffusion_builder.schedule.prediction import derivative
from diffusion_builder.schedule.table import Course, Row, Schedule, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusion_builder.schedule.settings import SchedulerSettings


def heun(settings: SchedulerSettings, steps: int) -> Schedule:
    """Schedule of two slots and 2 N - 1 calls."""
    timesteps, levels = exploding_levels(settings, steps)
    # The second call of a step is at the level that the step goes to, which the next step starts from.
    visited = (np.arange(2 * steps - 1) + 1) // 2

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, mean, output = rows
        step, second = divmod(call, 2)
        change = levels.sigmas[step + 1] - levels.sigmas[step]
        slope = derivative(settings, latent, output, levels, int(visited[call]))
        if second:
            # before + change * (first slope + slope) / 2, and after = before + change * first slope
            return [mean + change / 2 * slope, 0 * mean]
        after = latent + change * slope
        return [after, (latent + after) / 2]

    scales = input_scales(levels.sigmas[visited])
    course = Course(steps, timesteps[visited], scales, initial_scale(settings, levels))
    return tabulate(course, 2, advance)
