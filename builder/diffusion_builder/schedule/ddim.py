"""DDIM with eta 0: eq. 12 of arXiv 2010.02502 as diffusers' scheduling_ddim.py writes it. State: the latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusion_builder.schedule.noise import alphas_cumprod
from diffusion_builder.schedule.prediction import clean_sample, noise
from diffusion_builder.schedule.table import Course, Row, Schedule, tabulate
from diffusion_builder.schedule.timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusion_builder.schedule.settings import SchedulerSettings


def ddim(settings: SchedulerSettings, steps: int) -> Schedule:
    """Schedule of one slot and one call a step."""
    timesteps = spaced(settings, steps).round()
    cumulated = alphas_cumprod(settings)
    final = 1.0 if settings.set_alpha_to_one else cumulated[0]

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output = rows
        timestep = int(timesteps[call])
        following = timestep - settings.num_train_timesteps // steps
        alpha, alpha_following = cumulated[timestep], cumulated[following] if following >= 0 else final
        scales = float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))
        sample = clean_sample(settings, latent, output, *scales)
        return [
            np.sqrt(alpha_following) * sample + np.sqrt(1 - alpha_following) * noise(settings, latent, output, *scales)
        ]

    return tabulate(Course.unscaled(steps, timesteps), 1, advance)
