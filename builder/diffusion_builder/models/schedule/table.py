"""From a scheduler's step, written for rows of coefficients, to the table that is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import ScheduleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
# A quantity of a step as its coefficients [S+2] over the state's slots, the model's output and fresh noise.
Row = Floats
# Rows of every table, so that requests of different step counts batch together.
MAX_CALLS = 64


@dataclass(frozen=True)
class ScheduleRun:
    """Which part of a schedule is run.

    Args:
        steps: of the whole schedule.
        first_call: how many of them are skipped.
        eta: fraction of DDPM's noise in DDIM's steps.
    """

    steps: int
    first_call: int = 0
    eta: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """A schedule, padded to 64 rows.

    Args:
        calls: rows in use: how often the denoiser is called, which may be more often than there are steps.
        table: float32 [64, S+1, S+2]. Row i's columns are the state's slots, the model's output and fresh noise; its
            rows 0..S-1 give the new slots, latent first, row S the predicted clean sample.
        levels: float32 [64, 4]: timestep in training timesteps, factor from latent to model input, and the factors
            of a clean latent and of noise that make a latent as noisy as the one after this call.
        first: the same two factors before the first call, for a schedule that starts from an image.
        initial_scale: standard deviation of the first latent, in units of the noise, when it starts from noise alone.
    """

    calls: int
    table: Singles
    levels: Singles
    first: tuple[float, float]
    initial_scale: float

    @property
    def slots(self) -> int:
        """State slots S."""
        return int(self.table.shape[1]) - 1

    @property
    def input_scale(self) -> float:
        """Factor from the first latent to the first model input."""
        return float(self.levels[0, 1])

    @property
    def draws(self) -> tuple[bool, ...]:
        """Of each call, whether it adds fresh noise."""
        return tuple(bool(has_noise) for has_noise in self.table[: self.calls, :, -1].any(axis=1))

    def padded(self, slots: int) -> Singles:
        """The table [64, slots+1, slots+2] for a state of at least S slots, of which the last ones stay empty."""
        table = np.zeros((MAX_CALLS, slots + 1, slots + 2), np.float32)
        rows, columns = np.r_[: self.slots, slots], np.r_[: self.slots, slots, slots + 1]
        table[:, rows[:, None], columns] = self.table
        return table


@dataclass(frozen=True)
class CallParameters:
    """What the denoiser is given at each call.

    Args:
        timesteps: [calls], in training timesteps.
        input_scales: [calls], factor from the latent to the model input.
        mixes: [calls, 2], factors of the clean latent and of the noise in the latent.
        initial_scale: standard deviation of the first latent, in units of the noise.
    """

    timesteps: Floats
    input_scales: Floats
    mixes: Floats
    initial_scale: float = 1.0

    @classmethod
    def preserving(cls, timesteps: Floats, signals: Floats, spreads: Floats) -> CallParameters:
        """Of a variance-preserving latent, which itself is the model input.

        Args:
            timesteps: [calls].
            signals: [calls or more], factors of the clean latent.
            spreads: [calls or more], factors of the noise.
        """
        calls = len(timesteps)
        return cls(timesteps, np.ones(calls), np.stack([signals[:calls], spreads[:calls]], axis=1))

    @classmethod
    def discrete(cls, timesteps: Floats, cumulated: Floats) -> CallParameters:
        """Of a variance-preserving latent at whole training timesteps.

        Args:
            timesteps: [calls].
            cumulated: [T], cumulated products of the training's alphas.
        """
        alphas = cumulated[timesteps.astype(np.int64)]
        return cls.preserving(timesteps, np.sqrt(alphas), np.sqrt(1 - alphas))


def tabulate(course: CallParameters, slots: int, advance: Callable[[int, Sequence[Row]], Sequence[Row]]) -> Schedule:
    """Write a scheduler down as a table by running it once with unit rows instead of latents.

    Args:
        course: what each call is given.
        slots: state slots S.
        advance: call index and S+2 rows (slots, model output, noise) to S+1 rows: the new slots, latent first, and
            the predicted clean sample.

    Raises:
        ScheduleError: more calls than a table has rows, or a step divides by zero.
    """
    calls = len(course.timesteps)
    if calls > MAX_CALLS:
        raise ScheduleError(
            f"{calls} denoiser calls are needed, at most {MAX_CALLS} are supported: use fewer steps",
        )
    table = np.zeros((MAX_CALLS, slots + 1, slots + 2), np.float32)
    unit = list(np.eye(slots + 2))
    # The last step may go to a noise of exactly 0, where logarithms are infinite and coefficients are not.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for call in range(calls):
            try:
                table[call] = np.array(advance(call, unit))
            except np.linalg.LinAlgError:
                raise _division_by_zero() from None
    if not np.isfinite(table).all():
        raise _division_by_zero()
    levels = np.zeros((MAX_CALLS, 4), np.float32)
    levels[:calls, 0], levels[:calls, 1] = course.timesteps, course.input_scales
    # After the last call a latent is clean.
    levels[:calls, 2:] = np.vstack([course.mixes[1:], [1.0, 0.0]])
    table.setflags(write=False)
    levels.setflags(write=False)
    first = float(course.mixes[0, 0]), float(course.mixes[0, 1])
    return Schedule(calls, table, levels, first, course.initial_scale)


def _division_by_zero() -> ScheduleError:
    return ScheduleError(
        "a step of this scheduler divides by zero: with rescale_betas_zero_snr use v_prediction, "
        "with final_sigmas_type zero leave lower_order_final on",
    )
