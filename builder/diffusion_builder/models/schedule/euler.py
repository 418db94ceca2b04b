"""Euler: algorithm 2 of arXiv 2206.00364 without churn and correction (scheduling_euler_discrete.py).

State: the latent, variance-exploding; the model is given it scaled to unit variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .noise import Levels, respaced, sigmas_at, timesteps_at, with_final_sigma
from .prediction import clean_exploding
from .table import CallParameters, Floats, Row, Schedule, ScheduleRun, tabulate
from .timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings


def euler(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step."""
    course, levels = exploding(settings, run)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, _ = rows
        sample = clean_exploding(settings, latent, output, levels, call)
        change = levels.sigmas[call + 1] - levels.sigmas[call]
        return [latent + change * (latent - sample) / levels.sigmas[call], sample]

    return tabulate(course, 1, advance)


def exploding(settings: SchedulerSettings, run: ScheduleRun) -> tuple[CallParameters, Levels]:
    """Course of N calls and noise levels [N+1] of the schedulers that keep a variance-exploding latent."""
    timesteps = spaced(settings, run.steps).astype(np.float32).astype(np.float64)
    sigmas = sigmas_at(settings, timesteps)
    changed = respaced(settings, sigmas[-1], sigmas[0], run.steps)
    if changed is not None:
        timesteps, sigmas = timesteps_at(settings, changed), changed
    levels = with_final_sigma(settings, sigmas)
    scale = _initial_scale(settings, levels)
    remaining = Levels(levels.sigmas[run.first_call :])
    return exploding_course(timesteps[run.first_call :], remaining.sigmas[:-1], scale), remaining


def exploding_course(timesteps: Floats, sigmas: Floats, initial_scale: float) -> CallParameters:
    """Of a latent with these noise levels [calls]."""
    mixes = np.stack([np.ones(len(sigmas)), sigmas], axis=1)
    return CallParameters(timesteps, 1 / np.sqrt(sigmas**2 + 1), mixes, initial_scale)


def _initial_scale(settings: SchedulerSettings, levels: Levels) -> float:
    """Standard deviation of the first latent of the whole schedule."""
    top = float(levels.sigmas[0])
    return float(np.sqrt(top**2 + 1)) if settings.timestep_spacing == "leading" else top
