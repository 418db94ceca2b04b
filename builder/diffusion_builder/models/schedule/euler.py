"""Schedulers that keep a variance-exploding latent: Euler, ancestral Euler and Heun.

Euler: algorithm 2 of arXiv 2206.00364 without churn and correction (scheduling_euler_discrete.py); ancestral sampling
is a step to less noise, then fresh noise (scheduling_euler_ancestral_discrete.py). Heun: algorithm 1 of the same paper
(scheduling_heun_discrete.py), two denoiser calls for each step but the last.

State: the latent; the model is given it scaled to unit variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .classes import SchedulerType
from .noise import Levels, respaced, sigmas_at, timesteps_at, with_final_sigma
from .prediction import clean_exploding
from .table import CallParameters, Floats, Row, Schedule, ScheduleRun, tabulate
from .timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings


def euler(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step; of ancestral sampling each step but the last draws noise."""
    course, levels = _exploding(settings, run)
    is_ancestral = settings.type is SchedulerType.EULER_ANCESTRAL

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, call_noise = rows
        sample = clean_exploding(settings, latent, output, levels, call)
        start, end = levels.sigmas[call], levels.sigmas[call + 1]
        up = np.sqrt(end**2 * (start**2 - end**2) / start**2) if is_ancestral else 0.0
        down = np.sqrt(end**2 - up**2) if is_ancestral else end
        return [latent + (down - start) * (latent - sample) / start + up * call_noise, sample]

    return tabulate(course, 1, advance)


def heun(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of 2 N - 1 calls for N steps; slots: the latent, the mean of those before and after an Euler step."""
    single, levels = _exploding(settings, run)
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

    course = _course(single.timesteps[visited], levels.sigmas[visited], single.initial_scale)
    return tabulate(course, 2, advance)


def _exploding(settings: SchedulerSettings, run: ScheduleRun) -> tuple[CallParameters, Levels]:
    """Course of N calls and noise levels [N+1] of the schedulers that keep a variance-exploding latent."""
    timesteps = spaced(settings, run.steps).astype(np.float32).astype(np.float64)
    sigmas = sigmas_at(settings, timesteps)
    changed = respaced(settings, sigmas[-1], sigmas[0], run.steps)
    if changed is not None:
        timesteps, sigmas = timesteps_at(settings, changed), changed
    levels = with_final_sigma(settings, sigmas)
    scale = _initial_scale(settings, levels)
    remaining = Levels(levels.sigmas[run.first_call :])
    return _course(timesteps[run.first_call :], remaining.sigmas[:-1], scale), remaining


def _course(timesteps: Floats, sigmas: Floats, initial_scale: float) -> CallParameters:
    """Of a latent with these noise levels [calls]."""
    mixes = np.stack([np.ones(len(sigmas)), sigmas], axis=1)
    return CallParameters(timesteps, 1 / np.sqrt(sigmas**2 + 1), mixes, initial_scale)


def _initial_scale(settings: SchedulerSettings, levels: Levels) -> float:
    """Standard deviation of the first latent of the whole schedule."""
    top = float(levels.sigmas[0])
    return float(np.sqrt(top**2 + 1)) if settings.timestep_spacing == "leading" else top
