"""Schedulers of models in the formulation of EDM (arXiv 2206.00364), such as Playground 2.5: Euler and DPM-Solver++.

The latent is clean sample + sigma * noise; what the model is given and what it answers is scaled by the deviation of
clean samples (table 1 of the paper, last column), and its timestep is a quarter of sigma's logarithm. As
scheduling_edm_euler.py and scheduling_edm_dpmsolver_multistep.py write it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .classes import SchedulerType
from .dpmsolver import DpmSolver
from .noise import Levels, karras
from .table import CallParameters, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings
    from .table import Floats, Row, Schedule, ScheduleRun


@dataclass(frozen=True)
class _EdmLevels(Levels):
    """Noise levels of a latent whose clean sample is not scaled."""

    def signal(self, index: int) -> float:  # noqa: ARG002 - the same at every level
        """Factor of the clean sample."""
        return 1.0

    def spread(self, index: int) -> float:
        """Factor of the noise."""
        return float(self.sigmas[index])


def edm_euler(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of one slot and one call a step, without churn."""
    levels = _levels(settings, run)

    def advance(call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, output, _ = rows
        sigma, target = levels.sigmas[call], levels.sigmas[call + 1]
        sample = _clean_sample(settings, latent, output, sigma)
        return [latent + (target - sigma) / sigma * (latent - sample), sample]

    return tabulate(_course(settings, levels), 1, advance)


def edm_dpm_solver(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of as many slots as the solver's order, and one call a step."""
    levels = _levels(settings, run)
    solver = _EdmDpmSolver(settings, levels, run)
    return tabulate(_course(settings, levels), settings.solver_order, solver.advance)


class _EdmDpmSolver(DpmSolver):
    def clean_sample(self, call: int, latent: Row, output: Row) -> Row:
        return _clean_sample(self.settings, latent, output, self.levels.sigmas[call])


def _clean_sample(settings: SchedulerSettings, latent: Row, output: Row, sigma: float) -> Row:
    """The predicted clean sample."""
    data = settings.sigma_data
    whole = sigma**2 + data**2
    sign = -1 if settings.prediction_type == "v_prediction" else 1
    return data**2 / whole * latent + sign * sigma * data / math.sqrt(whole) * output


def _course(settings: SchedulerSettings, levels: Levels) -> CallParameters:
    sigmas = levels.sigmas[:-1]
    mixes = np.stack([np.ones(len(sigmas)), sigmas], axis=1)
    scales = 1 / np.sqrt(sigmas**2 + settings.sigma_data**2)
    return CallParameters(np.log(sigmas) / 4, scales, mixes, math.sqrt(settings.sigma_limits[1] ** 2 + 1))


def _levels(settings: SchedulerSettings, run: ScheduleRun) -> Levels:
    """Noise levels of the steps that are run, and after them."""
    sigmas = _sigmas(settings, run.steps)
    is_euler = settings.type is SchedulerType.EDM_EULER
    smallest = sigmas[-1] if is_euler else settings.sigma_limits[0]
    last = 0.0 if settings.final_sigmas_type == "zero" else smallest
    levels = np.append(sigmas, last).astype(np.float32).astype(np.float64)
    return _EdmLevels(levels[run.first_call :])


def _sigmas(settings: SchedulerSettings, steps: int) -> Floats:
    low, high = settings.sigma_limits
    if settings.sigma_schedule == "karras":
        return karras(low, high, steps, settings.rho)
    exponential: Floats = np.exp(np.linspace(math.log(low), math.log(high), steps))[::-1]
    return exponential
