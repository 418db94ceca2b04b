"""Schedulers as tables: a step is a linear map of the state and the model's output.

For every step i a matrix of shape [S+1, S+1] over S state slots: columns are the slots and the model's output,
rows 0..S-1 give the new slots, row S gives the next model input. Formulas are those of diffusers'
`scheduling_ddim.py` (eta 0, DDIM paper eq. 12) and `scheduling_euler_discrete.py` (s_churn 0), with what
`StableDiffusionPipeline` forces on every scheduler: `steps_offset` 1 and no clipping of the predicted sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffusion_builder.contract import MAX_STEPS
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Floats = NDArray[np.float64]

# StableDiffusionPipeline.__init__ overrides the configured value of every scheduler with this one.
_STEPS_OFFSET = 1
_SPACINGS = ("leading", "trailing", "linspace")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_BETA_SCHEDULES = ("linear", "scaled_linear")
# Configurations that are not a linear map of this form, or have timesteps that are not served yet.
_REFUSED = ("thresholding", "rescale_betas_zero_snr", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


class SchedulerType(StrEnum):
    """Schedulers that are served."""

    DDIM = "DDIM"
    EULER = "Euler"


@dataclass(frozen=True)
class SchedulerSettings:
    """What a schedule is computed from; names and meaning as in diffusers' configurations."""

    type: SchedulerType
    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    prediction_type: str
    timestep_spacing: str
    set_alpha_to_one: bool
    final_sigmas_type: str

    @classmethod
    def from_config(cls, type_: SchedulerType, config: Mapping[str, Any]) -> SchedulerSettings:
        """Read a checkpoint's scheduler_config.json as a scheduler of this type would.

        What the file does not say has the default of the type's class in diffusers, which is what
        `Scheduler.from_config` does when a pipeline's scheduler is replaced.

        Raises:
            BadInputError: the configuration asks for something that is not served.
        """
        for name in _REFUSED:
            if config.get(name):
                raise _unsupported(name, config[name], "remove it")
        spacing = "leading" if type_ is SchedulerType.DDIM else "linspace"
        betas = config.get("trained_betas")
        return cls(
            type_,
            int(config.get("num_train_timesteps", 1000)),
            float(config.get("beta_start", 0.0001)),
            float(config.get("beta_end", 0.02)),
            _choice(config, "beta_schedule", "linear", _BETA_SCHEDULES),
            None if betas is None else tuple(float(beta) for beta in betas),
            _choice(config, "prediction_type", "epsilon", _PREDICTIONS),
            _choice(config, "timestep_spacing", spacing, _SPACINGS),
            bool(config.get("set_alpha_to_one", True)),
            _choice(config, "final_sigmas_type", "zero", ("zero", "sigma_min")),
        )


@dataclass(frozen=True)
class Schedule:
    """A tier's schedule, padded to 64 rows.

    Args:
        steps: how many rows are in use.
        table: float32 [64, S+1, S+1].
        timesteps: float32 [64], in training timesteps.
        initial_scale: standard deviation of the first state, in units of the noise.
        input_scale: factor from the first state to the first model input.
    """

    steps: int
    table: NDArray[np.float32]
    timesteps: NDArray[np.float32]
    initial_scale: float
    input_scale: float

    @property
    def slots(self) -> int:
        """State slots S."""
        return int(self.table.shape[1]) - 1


def schedule(settings: SchedulerSettings, steps: int) -> Schedule:
    """Compute the schedule of one tier.

    Args:
        settings: the scheduler.
        steps: denoising steps, 1 to 64.

    Raises:
        BadInputError: the step count is out of range.
    """
    if not 1 <= steps <= min(MAX_STEPS, settings.num_train_timesteps):
        raise BadInputError(Reason.INVALID_SPEC, f"{steps} steps: a tier has 1 to {MAX_STEPS} steps")
    timesteps = _timesteps(settings, steps)
    return _TABLES[settings.type](settings, timesteps)


def _choice(config: Mapping[str, Any], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = str(config.get(name, default))
    if value not in choices:
        raise _unsupported(name, value, f"use one of {', '.join(choices)}")
    return value


def _unsupported(name: str, value: object, advice: str) -> BadInputError:
    return BadInputError(
        Reason.UNSUPPORTED_SCHEDULER, f"scheduler_config.json has {name}: {value}, which is not served: {advice}"
    )


def _alphas_cumprod(settings: SchedulerSettings) -> Floats:
    """Cumulated products as torch computes them: float32 elements, accumulated in double precision."""
    count = settings.num_train_timesteps
    if settings.trained_betas is not None:
        betas = np.asarray(settings.trained_betas, np.float32)
    elif settings.beta_schedule == "linear":
        betas = np.linspace(settings.beta_start, settings.beta_end, count).astype(np.float32)
    else:
        roots = np.linspace(settings.beta_start**0.5, settings.beta_end**0.5, count).astype(np.float32)
        betas = roots**2
    alphas = np.float32(1.0) - betas
    products: Floats = np.cumprod(alphas.astype(np.float64)).astype(np.float32).astype(np.float64)
    return products


def _timesteps(settings: SchedulerSettings, steps: int) -> Floats:
    """Training timesteps in the order of denoising (table 2 of arXiv 2305.08891)."""
    count = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        spaced: Floats = np.linspace(0, count - 1, steps)[::-1]
        # DDIM indexes with them, Euler interpolates between them.
        return spaced.round() if settings.type is SchedulerType.DDIM else spaced.astype(np.float32).astype(float)
    if settings.timestep_spacing == "leading":
        leading: Floats = np.arange(0, steps)[::-1] * float(count // steps) + _STEPS_OFFSET
        return leading
    trailing: Floats = np.round(np.arange(count, 0, -count / steps)) - 1
    return trailing


def _ddim(settings: SchedulerSettings, timesteps: Floats) -> Schedule:
    cumulated = _alphas_cumprod(settings)
    final = 1.0 if settings.set_alpha_to_one else cumulated[0]
    current = timesteps.astype(int)
    previous = current - settings.num_train_timesteps // len(current)
    alpha = cumulated[current]
    alpha_previous = np.where(previous >= 0, cumulated[previous], final)
    sample, noise = _predictions(settings.prediction_type, np.sqrt(alpha), np.sqrt(1 - alpha))
    step = np.sqrt(alpha_previous)[:, None] * sample + np.sqrt(1 - alpha_previous)[:, None] * noise
    return _schedule(step, np.ones(len(current)), timesteps, 1.0)


def _predictions(kind: str, signal: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Coefficients [N, 2] over (latent, model output) of the predicted sample and the predicted noise."""
    if kind == "epsilon":
        return _columns(1 / signal, -spread / signal), _columns(0 * signal, 1 + 0 * signal)
    if kind == "sample":
        return _columns(0 * signal, 1 + 0 * signal), _columns(1 / spread, -signal / spread)
    return _columns(signal, -spread), _columns(spread, signal)


def _columns(first: Floats, second: Floats) -> Floats:
    return np.stack([first, second], axis=1)


def _euler(settings: SchedulerSettings, timesteps: Floats) -> Schedule:
    cumulated = _alphas_cumprod(settings)
    all_sigmas = np.sqrt((1 - cumulated) / cumulated)
    sigmas: Floats = np.interp(timesteps, np.arange(len(all_sigmas)), all_sigmas)
    last = 0.0 if settings.final_sigmas_type == "zero" else all_sigmas[0]
    following = np.append(sigmas[1:], last)
    derivative = _derivative(settings.prediction_type, sigmas)
    step = np.array([1.0, 0.0]) + (following - sigmas)[:, None] * derivative
    input_scales = 1 / np.sqrt(np.append(sigmas, last) ** 2 + 1)
    top = float(sigmas.max())
    initial = np.sqrt(top**2 + 1) if settings.timestep_spacing == "leading" else top
    return _schedule(step, input_scales[1:], timesteps, float(initial), float(input_scales[0]))


def _derivative(kind: str, sigmas: Floats) -> Floats:
    """Coefficients [N, 2] over (latent, model output) of d latent / d sigma."""
    if kind == "epsilon":
        return _columns(0 * sigmas, 1 + 0 * sigmas)
    if kind == "sample":
        return _columns(1 / sigmas, -1 / sigmas)
    return _columns(sigmas / (sigmas**2 + 1), 1 / np.sqrt(sigmas**2 + 1))


def _schedule(
    step: Floats, input_scales: Floats, timesteps: Floats, initial_scale: float, input_scale: float = 1.0
) -> Schedule:
    """Assemble a one-slot table: the new latent, and the same scaled for the model."""
    count = len(step)
    table = np.zeros((MAX_STEPS, 2, 2), np.float32)
    table[:count, 0] = step
    table[:count, 1] = step * input_scales[:, None]
    padded = np.zeros(MAX_STEPS, np.float32)
    padded[:count] = timesteps
    return Schedule(count, table, padded, initial_scale, input_scale)


_TABLES: Mapping[SchedulerType, Callable[[SchedulerSettings, Floats], Schedule]] = {
    SchedulerType.DDIM: _ddim,
    SchedulerType.EULER: _euler,
}
