"""Euler with ancestral sampling (scheduling_euler_ancestral_discrete.py): a step to less noise, then fresh noise.

State: the latent, variance-exploding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .euler import exploding
from .prediction import clean_exploding
from .table import Row, Schedule, ScheduleRun, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings


def euler_ancestral(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; each step but the last draws noise."""
    course, levels = exploding(settings, run)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        sample = clean_exploding(settings, latent, output, levels, call)
        start, end = levels.sigmas[call], levels.sigmas[call + 1]
        up = np.sqrt(end**2 * (start**2 - end**2) / start**2)
        down = np.sqrt(end**2 - up**2)
        return [latent + (down - start) * (latent - sample) / start + up * call_noise, sample]

    return tabulate(course, 1, advance)
