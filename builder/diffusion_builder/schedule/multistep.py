"""What DPM-Solver, DEIS and UniPC share: timesteps, noise levels, and lower orders at both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.schedule.noise import (
    Levels,
    first_timestep,
    followed_by_last,
    karras,
    sigmas_at,
    timesteps_at,
    training_sigmas,
)
from diffusion_builder.schedule.settings import SchedulerType
from diffusion_builder.schedule.timesteps import spaced_without_end

if TYPE_CHECKING:
    from diffusion_builder.schedule.settings import SchedulerSettings
    from diffusion_builder.schedule.table import Floats

# With more steps than this an unstable last step does little harm.
_FEW_STEPS = 15


def multistep_levels(settings: SchedulerSettings, steps: int) -> tuple[Floats, Levels]:
    """Timesteps [N] and noise levels [N+1].

    Raises:
        BadInputError: the first two levels fall on one timestep, where diffusers fails too.
    """
    timesteps = spaced_without_end(settings, steps, first_timestep(settings))
    sigmas = sigmas_at(settings, timesteps)
    if settings.use_karras_sigmas:
        training = training_sigmas(settings)
        sigmas = karras(training[0], training[-1], steps)
        timesteps = timesteps_at(settings, sigmas)
    whole = np.trunc(timesteps if _truncates(settings) else timesteps.round())
    if steps > 1 and whole[0] == whole[1]:
        raise BadInputError(
            Reason.UNSUPPORTED_SCHEDULER,
            f"{steps} steps: the first two noise levels fall on timestep {int(whole[0])}: "
            "use fewer steps, or do not use use_karras_sigmas with such a noisy schedule",
        )
    return whole, followed_by_last(settings, sigmas)


def order_at(settings: SchedulerSettings, call: int, steps: int) -> int:
    """Order of a step of DPM-Solver or DEIS: less while there is no history, and at the end of few steps."""
    cautious = settings.lower_order_final and steps < _FEW_STEPS
    order = min(settings.solver_order, call + 1)
    if call == steps - 1 and (cautious or settings.euler_at_final or settings.final_sigmas_type == "zero"):
        return 1
    return min(order, 2) if call == steps - 2 and cautious else order


def _truncates(settings: SchedulerSettings) -> bool:
    return settings.type is SchedulerType.DPM_SOLVER_MULTISTEP and settings.beta_schedule == "squaredcos_cap_v2"
