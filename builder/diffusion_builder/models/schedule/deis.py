"""DEIS multistep of order 1, 2 or 3 in log-rho: arXiv 2204.13902 as scheduling_deis_multistep.py writes it.

State: the latent, and the noise predicted at the steps before, newest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .multistep import MultistepSolver, multistep
from .prediction import clean_sample, noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings
    from .table import Floats, Row, Schedule, ScheduleRun


def deis(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of as many slots as the solver's order, and one call a step."""
    return multistep(settings, run, _Solver, settings.solver_order)


class _Solver(MultistepSolver):
    def advance(self, call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, *history, output, _ = rows
        signal, spread = self.levels.signal(call), self.levels.spread(call)
        noises = [noise(self.settings, latent, output, signal, spread), *history]
        order = self.order(call)
        weights = integrals(self.levels.sigmas[call + 1], self.levels.sigmas[call - order + 1 : call + 1][::-1])
        change = sum(weight * past for weight, past in zip(weights, noises, strict=False))
        moved = self.levels.signal(call + 1) * (latent / signal + change)
        return [moved, *noises[: len(history)], clean_sample(self.settings, latent, output, signal, spread)]


def integrals(end: float, nodes: Floats) -> Sequence[float]:
    """Integrals from nodes[0] to end of the Lagrange polynomials in log(rho) through the nodes (eq. 15).

    Args:
        end: noise level that the step goes to.
        nodes: [order] noise levels of the step and those before it, newest first.
    """
    logs = np.log(nodes)
    weights = []
    for index, log in enumerate(logs):
        other_logs = np.delete(logs, index)
        polynomial = np.poly(other_logs) / np.prod(log - other_logs)
        weights.append(_antiderivative(polynomial, end) - _antiderivative(polynomial, float(nodes[0])))
    return weights


def _antiderivative(polynomial: Floats, rho: float) -> float:
    """Of p(log rho): the integral of e^u p(u) is e^u (p - p' + p'' - ...)."""
    total, current = 0.0, np.poly1d(polynomial)
    for sign in (1, -1, 1):
        total += sign * float(current(np.log(rho)))
        current = current.deriv()
    return rho * total
