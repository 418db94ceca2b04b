"""From a scheduler's step, written for rows of coefficients, to the table that is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusion_builder.contract import MAX_STEPS
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = NDArray[np.float64]
# A quantity of a step as its coefficients [S+1] over the state's slots and the model's output.
Row = Floats


@dataclass(frozen=True)
class Schedule:
    """A tier's schedule, padded to 64 rows.

    Args:
        calls: rows in use: how often the denoiser is called, which may be more often than the tier has steps.
        table: float32 [64, S+1, S+1]. Row i's columns are the state's slots and the model's output; its rows
            0..S-1 give the new slots, row S the next model input.
        timesteps: float32 [64], in training timesteps.
        initial_scale: standard deviation of the first state, in units of the noise.
        input_scale: factor from the first state to the first model input.
    """

    calls: int
    table: NDArray[np.float32]
    timesteps: NDArray[np.float32]
    initial_scale: float = 1.0
    input_scale: float = 1.0

    @property
    def slots(self) -> int:
        """State slots S."""
        return int(self.table.shape[1]) - 1


@dataclass(frozen=True)
class Course:
    """What the denoiser is given at each call.

    Args:
        steps: the tier's step count.
        timesteps: [calls], in training timesteps.
        input_scales: [calls], factor from the latent to the model input; ones when there is none.
        initial_scale: standard deviation of the first latent.
    """

    steps: int
    timesteps: Floats
    input_scales: Floats
    initial_scale: float = 1.0

    @classmethod
    def unscaled(cls, steps: int, timesteps: Floats) -> Course:
        """The latent itself is the model input."""
        return cls(steps, timesteps, np.ones(len(timesteps)))


def tabulate(course: Course, slots: int, advance: Callable[[int, Sequence[Row]], Sequence[Row]]) -> Schedule:
    """Write a scheduler down as a table by running it once with unit rows instead of latents.

    Args:
        course: timesteps and scales.
        slots: state slots S.
        advance: call index and S+1 rows (slots, model output) to the S rows of the new slots, latent first.

    Raises:
        BadInputError: more calls than a table has rows, or a step divides by zero.
    """
    calls = len(course.timesteps)
    if calls > MAX_STEPS:
        raise BadInputError(
            Reason.INVALID_SPEC,
            f"{course.steps} steps of this scheduler need {calls} denoiser calls, at most {MAX_STEPS} are served: "
            "use fewer steps",
        )
    following = np.append(course.input_scales[1:], 1.0)
    table = np.zeros((MAX_STEPS, slots + 1, slots + 1), np.float32)
    unit = list(np.eye(slots + 1))
    # The last step may go to a noise of exactly 0, where logarithms are infinite and coefficients are not.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for call in range(calls):
            try:
                new = np.array(advance(call, unit))
            except np.linalg.LinAlgError:
                raise _division_by_zero() from None
            table[call] = np.vstack([new, new[0] * following[call]])
    if not np.isfinite(table).all():
        raise _division_by_zero()
    timesteps = np.zeros(MAX_STEPS, np.float32)
    timesteps[:calls] = course.timesteps
    return Schedule(calls, table, timesteps, course.initial_scale, float(course.input_scales[0]))


def _division_by_zero() -> BadInputError:
    return BadInputError(
        Reason.UNSUPPORTED_SCHEDULER,
        "a step of this scheduler divides by zero: with rescale_betas_zero_snr use v_prediction, "
        "with final_sigmas_type zero leave lower_order_final on",
    )
