"""Schedulers as tables: a step is a linear map of the state and the model's output.

Formulas are those of diffusers' scheduler classes, with what `StableDiffusionPipeline` forces on every scheduler:
`steps_offset` 1 and no clipping of the predicted sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.contract import MAX_STEPS
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.schedule.ddim import ddim
from diffusion_builder.schedule.deis import deis
from diffusion_builder.schedule.dpmsolver import dpm_solver
from diffusion_builder.schedule.euler import euler
from diffusion_builder.schedule.heun import heun
from diffusion_builder.schedule.pndm import pndm
from diffusion_builder.schedule.settings import SchedulerSettings, SchedulerType
from diffusion_builder.schedule.table import Schedule
from diffusion_builder.schedule.unipc import unipc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Schedule", "SchedulerSettings", "SchedulerType", "schedule"]

_TABLES: Mapping[SchedulerType, Callable[[SchedulerSettings, int], Schedule]] = {
    SchedulerType.DDIM: ddim,
    SchedulerType.EULER: euler,
    SchedulerType.HEUN: heun,
    SchedulerType.PNDM: pndm,
    SchedulerType.DPM_SOLVER_MULTISTEP: dpm_solver,
    SchedulerType.DEIS_MULTISTEP: deis,
    SchedulerType.UNIPC_MULTISTEP: unipc,
}


def schedule(settings: SchedulerSettings, steps: int) -> Schedule:
    """Compute the schedule of one tier.

    Args:
        settings: the scheduler.
        steps: what diffusers calls `num_inference_steps`, 1 to 64.

    Raises:
        BadInputError: the step count is out of range, or has no schedule with these settings.
    """
    # Every multistep spacing needs one training timestep more than there are steps.
    if not 1 <= steps <= min(MAX_STEPS, settings.num_train_timesteps - 1):
        raise BadInputError(Reason.INVALID_SPEC, f"{steps} steps: a tier has 1 to {MAX_STEPS} steps")
    return _TABLES[settings.type](settings, steps)
