"""UniPC of order 1, 2 or 3 in B(h) form: arXiv 2302.04867 as scheduling_unipc_multistep.py writes it.

State: the predicted latent (which the model is given), the corrected latent of the step before, and the clean
samples predicted at as many steps before as the solver has orders, newest first.
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING

import numpy as np

from .multistep import MultistepSolver, multistep
from .prediction import clean_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings
    from .table import Floats, Row, Schedule, ScheduleRun

# Exact weights of the lowest orders are replaced by this one (section 3.4).
_HALF = np.array([0.5])


def unipc(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of two slots more than the solver's order, and one call a step."""
    return multistep(settings, run, _Solver, settings.solver_order + 2)


class _Solver(MultistepSolver):
    def advance(self, call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, before, *history, output, _ = rows
        scales = self.levels.signal(call), self.levels.spread(call)
        sample = clean_sample(self.settings, latent, output, *scales)
        if call > 0 and self.run.first_call + call - 1 not in self.settings.disable_corrector:
            latent = self._correct(call - 1, before, history, sample)
        samples = [sample, *history[:-1]]
        return [self._predict(call, latent, samples), latent, *samples, sample]

    def order(self, call: int) -> int:
        """Less while there is no history, and at the end."""
        order = min(self.settings.solver_order, call + 1)
        return min(order, self.steps - call) if self.settings.lower_order_final else order

    def _predict(self, call: int, latent: Row, samples: Sequence[Row]) -> Row:
        """UniP: from the step's level to the next."""
        order = self.order(call)
        moved = self._first_order(call, latent, samples[0])
        if order == 1:
            return moved
        nodes = self._nodes(call, order)
        weights = _HALF if order == 2 else self._weights(call, nodes)  # noqa: PLR2004 - the order
        return moved - self._reach(call) * _slopes(weights, nodes, samples)

    def _correct(self, call: int, latent: Row, samples: Sequence[Row], arrived: Row) -> Row:
        """UniC: the same step again, now that the clean sample predicted where it arrived is known."""
        order = self.order(call)
        nodes = self._nodes(call, order)
        weights = _HALF if order == 1 else self._weights(call, np.append(nodes, 1.0))
        slopes = _slopes(weights[:-1], nodes, samples) + weights[-1] * (arrived - samples[0])
        corrected: Row = self._first_order(call, latent, samples[0]) - self._reach(call) * slopes
        return corrected

    def _step(self, call: int) -> float:
        """Minus h: the step in log_snr."""
        return float(self.levels.log_snr(call) - self.levels.log_snr(call + 1))

    def _first_order(self, call: int, latent: Row, sample: Row) -> Row:
        latent_factor = self.levels.spread(call + 1) / self.levels.spread(call)
        moved: Row = latent_factor * latent - self.levels.signal(call + 1) * np.expm1(self._step(call)) * sample
        return moved

    def _b(self, call: int) -> float:
        step = self._step(call)
        return step if self.settings.solver_type == "bh1" else float(np.expm1(step))

    def _reach(self, call: int) -> float:
        return self.levels.signal(call + 1) * self._b(call)

    def _nodes(self, call: int, order: int) -> Floats:
        """Levels [order - 1] before the step, in log_snr from its start in units of its length."""
        log_snr = self.levels.log_snr
        nodes = [(log_snr(call - back) - log_snr(call)) / -self._step(call) for back in range(1, order)]
        return np.array(nodes, np.float64)

    def _weights(self, call: int, nodes: Floats) -> Floats:
        """Solve R rho = b (eq. 9 and 10) for these nodes."""
        step, count = self._step(call), len(nodes)
        phi = np.expm1(step) / step - 1
        right = []
        for power in range(1, count + 1):
            right.append(phi * factorial(power) / self._b(call))
            phi = phi / step - 1 / factorial(power + 1)
        weights: Floats = np.linalg.solve(np.vander(nodes, increasing=True).T, np.array(right))
        return weights


def _slopes(weights: Floats, nodes: Floats, samples: Sequence[Row]) -> Row:
    total = 0 * samples[0]
    for weight, node, sample in zip(weights, nodes, samples[1:], strict=False):
        total = total + weight * (sample - samples[0]) / node
    return total
