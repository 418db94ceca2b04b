"""PNDM without Runge-Kutta steps, that is PLMS (scheduling_pndm.py; eq. 9 and 12 of arXiv 2202.09778).

State: the latent, and the outputs of the three calls before. N steps are N + 1 calls: the first step is taken twice,
the second time with the mean of the outputs at both of its ends. Between these two calls the third slot holds the
latent that the step starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .noise import alphas_cumprod
from .prediction import clean_sample, noise
from .table import CallParameters, Floats, Row, Schedule, ScheduleRun, tabulate
from .timesteps import spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings

_SLOTS = 4
# Linear multistep methods of order 2, 3 and 4, newest output first.
_WEIGHTS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def pndm(settings: SchedulerSettings, run: ScheduleRun) -> Schedule:
    """Schedule of four slots and N + 1 calls (one for a single step)."""
    timesteps = spaced(settings, run.steps).round()
    call_timesteps = np.insert(timesteps, 1, timesteps[1:2])[run.first_call :]
    cumulated = alphas_cumprod(settings)
    plms = _Plms(settings, cumulated, call_timesteps, settings.num_train_timesteps // run.steps)
    return tabulate(CallParameters.discrete(call_timesteps, cumulated), _SLOTS, plms.advance)


@dataclass(frozen=True)
class _Plms:
    settings: SchedulerSettings
    cumulated: Floats
    timesteps: Floats
    stride: int

    def advance(self, call: int, rows: Sequence[Row]) -> Sequence[Row]:
        latent, first, second, third, output, _ = rows
        timestep = int(self.timesteps[call])
        signal, spread = np.sqrt(self._alpha(timestep)), np.sqrt(1 - self._alpha(timestep))
        sample = clean_sample(self.settings, latent, output, signal, spread)
        nothing = 0 * latent
        if call == 0:
            return [self._transfer(latent, output, timestep), output, latent, nothing, sample]
        if call == 1:
            moved = self._transfer(second, (output + first) / 2, timestep + self.stride)
            return [moved, first, nothing, nothing, sample]
        outputs = [output, first, second, third][:call]
        mixed = sum(weight * past for weight, past in zip(_WEIGHTS[len(outputs)], outputs, strict=True))
        return [self._transfer(latent, nothing + mixed, timestep), output, first, second, sample]

    def _transfer(self, latent: Row, output: Row, timestep: int) -> Row:
        """Eq. 9: from a timestep to the one a stride before."""
        next_timestep = timestep - self.stride
        alpha, target = self._alpha(timestep), self._alpha(next_timestep)
        error = noise(self.settings, latent, output, np.sqrt(alpha), np.sqrt(1 - alpha))
        denominator = alpha * np.sqrt(1 - target) + np.sqrt(alpha * (1 - alpha) * target)
        moved: Row = np.sqrt(target / alpha) * latent - (target - alpha) / denominator * error
        return moved

    def _alpha(self, timestep: int) -> float:
        final = 1.0 if self.settings.set_alpha_to_one else self.cumulated[0]
        return float(self.cumulated[timestep] if timestep >= 0 else final)
