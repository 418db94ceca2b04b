"""Schedulers as tables: a step is a linear map of the state, the model's output and fresh noise.

Formulas are those of diffusers' scheduler classes, with what `StableDiffusionPipeline` forces on every scheduler of its
family: `steps_offset` 1 and no clipping of the predicted sample. Standard library and numpy only: this folder is
copied into the conditioner, which makes schedules per request.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from .classes import SchedulerType
from .deis import deis
from .discrete import ddim, ddpm, lcm, tcd
from .dpmsolver import dpm_solver
from .edm import edm_dpm_solver, edm_euler
from .errors import ScheduleError
from .euler import euler, heun
from .pndm import pndm
from .settings import SchedulerSettings
from .table import MAX_CALLS, Schedule, ScheduleRun
from .unipc import unipc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "MAX_CALLS", "Schedule", "ScheduleError", "SchedulerSettings", "SchedulerType", "begin_for", "calls_for",
    "loop_for", "refined_schedule", "schedule",
]  # fmt: skip

_TABLES: Mapping[SchedulerType, Callable[[SchedulerSettings, ScheduleRun], Schedule]] = {
    SchedulerType.DDIM: ddim,
    SchedulerType.DDPM: ddpm,
    SchedulerType.EULER: euler,
    SchedulerType.EULER_ANCESTRAL: euler,
    SchedulerType.HEUN: heun,
    SchedulerType.LCM: lcm,
    SchedulerType.TCD: tcd,
    SchedulerType.PNDM: pndm,
    SchedulerType.DPM_SOLVER_MULTISTEP: dpm_solver,
    SchedulerType.DEIS_MULTISTEP: deis,
    SchedulerType.UNIPC_MULTISTEP: unipc,
    SchedulerType.EDM_EULER: edm_euler,
    SchedulerType.EDM_DPM_SOLVER_MULTISTEP: edm_dpm_solver,
}
_WITH_ETA = (SchedulerType.DDIM, SchedulerType.TCD)
# A request's schedule is mostly one that was requested before; a table of 64 rows takes at most 11 kB.
_CACHE_SIZE = 512


@lru_cache(maxsize=_CACHE_SIZE)
def schedule(settings: SchedulerSettings, steps: int, begin: int = 0, eta: float = 0.0) -> Schedule:
    """Compute a schedule.

    Args:
        settings: the scheduler.
        steps: what diffusers calls `num_inference_steps`.
        begin: how many of these steps are skipped, `t_start` of diffusers' img2img; history starts there.
        eta: fraction of DDPM's noise in DDIM's steps, or how far back TCD's steps go, 0 to 1.

    Returns:
        The schedule; it is shared, so its arrays cannot be written to.

    Raises:
        ScheduleError: a number is out of range, or these settings have no such schedule.
    """
    if not 1 <= steps <= settings.max_steps:
        raise ScheduleError(f"{steps} steps: the scheduler {settings.type} has 1 to {settings.max_steps} steps")
    if not 0 <= begin < steps:
        raise ScheduleError(f"{begin} of {steps} steps are skipped: at least one must be left")
    if not 0 <= eta <= 1:
        raise ScheduleError(f"eta {eta} is not in 0 to 1")
    if eta and settings.type not in _WITH_ETA:
        raise ScheduleError(f"the scheduler {settings.type} has no eta: leave it out, or use {' or '.join(_WITH_ETA)}")
    return _TABLES[settings.type](settings, ScheduleRun(steps, begin, eta))


def calls_for(type_: SchedulerType, steps: int) -> int:
    """How often the denoiser is called for so many steps."""
    if type_ is SchedulerType.HEUN:
        return 2 * steps - 1
    return steps + 1 if type_ is SchedulerType.PNDM and steps > 1 else steps


def loop_for(settings: SchedulerSettings, steps: int, denoising_start: float | None = None) -> tuple[int, int]:
    """How often the denoiser is called, and how many of these calls are the base's where there is a refiner.

    Args:
        settings: the scheduler.
        steps: of the whole schedule.
        denoising_start: fraction of the training timesteps after which a refiner takes over, `denoising_end` of
            diffusers' base and `denoising_start` of its refiner; None without a refiner.

    Raises:
        ScheduleError: the refiner would have no call or all of them, or the scheduler has steps of several calls.
    """
    calls = calls_for(settings.type, steps)
    if denoising_start is None:
        return calls, calls
    if settings.type in (SchedulerType.HEUN, SchedulerType.PNDM):
        raise ScheduleError(
            f"the scheduler {settings.type} has steps of several calls, which a refiner would cut apart: use another"
        )
    train = settings.num_train_timesteps
    cutoff = round(train - denoising_start * train)
    base = int((schedule(settings, steps).levels[:calls, 0] >= cutoff).sum())
    if not 0 < base < calls:
        raise ScheduleError(
            f"refiner.denoisingStart {denoising_start} leaves {'none' if base else 'all'} of {calls} calls to the "
            "refiner: use more steps, or another fraction"
        )
    return calls, base


@lru_cache(maxsize=_CACHE_SIZE)
def refined_schedule(settings: SchedulerSettings, steps: int, denoising_start: float, eta: float = 0.0) -> Schedule:
    """A schedule whose last calls are a refiner's, whose scheduler knows nothing of the calls before.

    Args:
        settings: of both.
        steps: of the whole schedule.
        denoising_start: see `loop_for`.
        eta: as for `schedule`.

    Raises:
        ScheduleError: as for `schedule` and `loop_for`.
    """
    calls, base = loop_for(settings, steps, denoising_start)
    whole, refiner = schedule(settings, steps, 0, eta), schedule(settings, steps, base, eta)
    table, levels = whole.table.copy(), whole.levels.copy()
    table[base:calls], levels[base:calls] = refiner.table[: calls - base], refiner.levels[: calls - base]
    for array in (table, levels):
        array.setflags(write=False)
    return Schedule(calls, table, levels, whole.first, whole.initial_scale)


def begin_for(settings: SchedulerSettings, steps: int, strength: float) -> tuple[int, int]:
    """The schedule of which `steps` are run at this strength.

    diffusers runs the last min(int(M * strength), M) of M steps; here the number that is run is given.

    Args:
        settings: the scheduler.
        steps: how many are run.
        strength: above 0 and at most 1.

    Returns:
        The smallest such M, and how many of its steps are skipped.

    Raises:
        ScheduleError: M is more than the scheduler has, because of the strength.
    """
    longest = max(steps, settings.max_steps)
    total = max(steps, int(min(steps / strength, longest)) - 1)
    while total <= longest and int(total * strength) < steps:
        total += 1
    if total > longest:
        raise ScheduleError(
            f"strength {strength} with {steps} steps is part of a schedule of more steps than the {longest} that the "
            f"scheduler {settings.type} has: use a strength of at least {_smallest(settings, steps)}, "
            "or fewer steps"
        )
    return total, total - steps


def _smallest(settings: SchedulerSettings, steps: int) -> float:
    """Rounded up, so that it is one that works."""
    return min(1.0, (steps * 10_000 // settings.max_steps + 1) / 10_000)
