"""Which training timesteps a sampler visits (table 2 of arXiv 2305.08891)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .settings import SchedulerSettings
    from .table import Floats


def spaced(settings: SchedulerSettings, steps: int) -> Floats:
    """Timesteps [steps] from noise to clean, both ends included; fractional where the spacing is `linspace`."""
    count = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        fractional: Floats = np.linspace(0, count - 1, steps)[::-1]
        return fractional
    if settings.timestep_spacing == "leading":
        leading: Floats = np.arange(steps)[::-1] * float(count // steps) + settings.steps_offset
        return leading
    return _trailing(count, count / steps, steps)


def spaced_without_end(settings: SchedulerSettings, steps: int, count: int) -> Floats:
    """Timesteps [steps] from noise to clean of the multistep schedulers, which end before the clean one.

    Args:
        settings: the spacing.
        steps: how many.
        count: timesteps that may be used, from the clean end.
    """
    if settings.timestep_spacing == "linspace":
        linspaced: Floats = np.linspace(0, count - 1, steps + 1).round()[:0:-1]
        return linspaced
    if settings.timestep_spacing == "leading":
        leading: Floats = np.arange(steps + 1)[:0:-1] * float(count // (steps + 1)) + settings.steps_offset
        return leading
    return _trailing(count, settings.num_train_timesteps / steps, steps)


def _trailing(count: int, stride: float, steps: int) -> Floats:
    # A stride that is rounded down gives one timestep too many (61 steps of 1000).
    trailing: Floats = np.round(np.arange(count, 0, -stride))[:steps] - 1
    return trailing
