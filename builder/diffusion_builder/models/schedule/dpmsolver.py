"""DPM-Solver++ multistep of order 1, 2 or 3: arXiv 2211.01095 as scheduling_dpmsolver_multistep.py writes it.

Also of the stochastic equation, which draws noise at each step but one to no noise at all.

State: the latent, and the clean samples predicted at the steps before, newest first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .classes import SDE
from .multistep import MultistepSolver, multistep
from .prediction import clean_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings
    from .table import Row, Schedule, ScheduleRun


def dpm_solver(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of as many slots as the solver's order, and one call a step."""
    return multistep(settings, run, DpmSolver, settings.solver_order)


class DpmSolver(MultistepSolver):
    """The solver in a latent that is signal · sample + spread · noise."""

    def advance(self, call: int, rows: Sequence[Row]) -> Sequence[Row]:
        """One step of rows, as `tabulate` wants it."""
        latent, *history, output, noise = rows
        samples = [self.clean_sample(call, latent, output), *history]
        moved = self._update(call, latent, samples[: self.order(call)])
        if self._is_stochastic:
            moved = moved + self.levels.spread(call + 1) * np.sqrt(-np.expm1(-2 * self._step(call))) * noise
        return [moved, *samples[: len(history)], samples[0]]

    def clean_sample(self, call: int, latent: Row, output: Row) -> Row:
        """The predicted clean sample."""
        return clean_sample(self.settings, latent, output, self.levels.signal(call), self.levels.spread(call))

    @property
    def _is_stochastic(self) -> bool:
        return self.settings.algorithm_type == SDE

    def _step(self, call: int) -> np.float64:
        return self.levels.log_snr(call + 1) - self.levels.log_snr(call)

    def _update(self, call: int, latent: Row, samples: Sequence[Row]) -> Row:
        step, target = self._step(call), self.levels.signal(call + 1)
        # The stochastic equation forgets the latent twice as fast, and the fresh noise makes up for it.
        span = 2 * step if self._is_stochastic else step
        decay = np.expm1(-span)
        shrink = np.exp(-step) if self._is_stochastic else 1.0
        remainder = shrink * self.levels.spread(call + 1) / self.levels.spread(call)
        moved: Row = remainder * latent - target * decay * samples[0]
        if len(samples) == 1:
            return moved
        first, second = self._differences(call, step, samples)
        if len(samples) == 2 and self.settings.solver_type == "midpoint":  # noqa: PLR2004 - the order
            moved -= target * decay / 2 * first
            return moved
        moved += target * (decay / span + 1) * first
        if second is not None:
            # The sign is that of diffusers' code.
            half = 0.5 if self._is_stochastic else -0.5
            moved -= target * ((decay + span) / span**2 + half) * second
        return moved

    def _differences(self, call: int, step: np.float64, samples: Sequence[Row]) -> tuple[Row, Row | None]:
        """Divided differences of the predicted samples over log_snr, in units of the step."""
        log_snr = self.levels.log_snr
        ratios = [(log_snr(call - i) - log_snr(call - i - 1)) / step for i in range(len(samples) - 1)]
        slopes = [(samples[i] - samples[i + 1]) / ratio for i, ratio in enumerate(ratios)]
        if len(slopes) == 1:
            return slopes[0], None
        bend = (slopes[0] - slopes[1]) / (ratios[0] + ratios[1])
        return slopes[0] + ratios[0] * bend, bend
