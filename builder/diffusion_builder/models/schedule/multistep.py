"""What DPM-Solver, DEIS and UniPC share: timesteps, noise levels, and lower orders at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .classes import SchedulerType
from .errors import ScheduleError
from .noise import Levels, first_timestep, respaced, sigmas_at, timesteps_at, training_sigmas, with_final_sigma
from .table import CallParameters, Schedule, ScheduleRun, tabulate
from .timesteps import spaced_without_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import SchedulerSettings
    from .table import Floats, Row

# With more steps than this an unstable last step does little harm.
_FEW_STEPS = 15


@dataclass(frozen=True)
class MultistepSolver:
    """A solver with a history; a subclass says how it advances.

    Args:
        settings: the scheduler.
        levels: noise levels [N+1] of the N steps that are run.
        run: which part of the whole schedule these are.
    """

    settings: SchedulerSettings
    levels: Levels
    run: ScheduleRun

    def advance(self, call: int, rows: Sequence[Row]) -> Sequence[Row]:
        """One step of rows, as `tabulate` wants it."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Steps N that are run."""
        return self.run.steps - self.run.first_call

    def order(self, call: int) -> int:
        """Order of a step of DPM-Solver or DEIS: less while there is no history, and at the end of few steps."""
        settings = self.settings
        cautious = settings.lower_order_final and self.run.steps < _FEW_STEPS
        order = min(settings.solver_order, call + 1)
        last = self.steps - 1
        if call == last and (cautious or settings.euler_at_final or settings.final_sigmas_type == "zero"):
            return 1
        return min(order, 2) if call == last - 1 and cautious else order


def multistep(settings: SchedulerSettings, run: ScheduleRun, solver: type[MultistepSolver], slots: int) -> Schedule:
    """Schedule of these slots, and one call a step."""
    timesteps, levels = _levels(settings, run)
    signals = 1 / np.sqrt(levels.sigmas**2 + 1)
    course = CallParameters.preserving(timesteps, signals, levels.sigmas * signals)
    return tabulate(course, slots, solver(settings, levels, run).advance)


def _levels(settings: SchedulerSettings, run: ScheduleRun) -> tuple[Floats, Levels]:
    """Timesteps [N] and noise levels [N+1].

    Raises:
        ScheduleError: the first two levels fall on one timestep, where diffusers fails too.
    """
    timesteps = spaced_without_end(settings, run.steps, first_timestep(settings))
    sigmas = sigmas_at(settings, timesteps)
    training = training_sigmas(settings)
    changed = respaced(settings, training[0], training[-1], run.steps)
    if changed is not None:
        timesteps, sigmas = timesteps_at(settings, changed), changed
    whole = np.trunc(timesteps if _truncates(settings) else timesteps.round())
    if run.steps > 1 and whole[0] == whole[1]:
        raise ScheduleError(
            f"{run.steps} steps: the first two noise levels fall on timestep {int(whole[0])}: "
            "use fewer steps, or do not use use_karras_sigmas with such a noisy schedule",
        )
    levels = with_final_sigma(settings, sigmas)
    return whole[run.first_call :], Levels(levels.sigmas[run.first_call :])


def _truncates(settings: SchedulerSettings) -> bool:
    cosine = settings.type is SchedulerType.DPM_SOLVER_MULTISTEP and settings.beta_schedule == "squaredcos_cap_v2"
    return cosine or settings.use_exponential_sigmas
