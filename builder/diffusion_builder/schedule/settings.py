"""What a schedule is computed from, read from a checkpoint as diffusers' class of that type would read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping


class SchedulerType(StrEnum):
    """Schedulers that are served, by the names of their classes in diffusers without what all of them share."""

    DDIM = "DDIM"
    EULER = "Euler"
    HEUN = "Heun"
    PNDM = "PNDM"
    DPM_SOLVER_MULTISTEP = "DPMSolverMultistep"
    DEIS_MULTISTEP = "DEISMultistep"
    UNIPC_MULTISTEP = "UniPCMultistep"


class SchedulerSettings(BaseModel):
    """Settings by the names of diffusers' configurations.

    A default here stands for a class that does not know the setting, and changes nothing; see `_CLASSES` for those
    of the classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: SchedulerType
    num_train_timesteps: int = Field(ge=2)
    beta_start: float = Field(ge=0, lt=1)
    beta_end: float = Field(ge=0, lt=1)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    trained_betas: tuple[float, ...] | None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    timestep_spacing: Literal["leading", "trailing", "linspace"]
    use_karras_sigmas: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "sigma_min"
    set_alpha_to_one: bool = False
    solver_order: int = Field(default=1, ge=1, le=3)
    solver_type: str = ""
    lower_order_final: bool = False
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf
    disable_corrector: tuple[int, ...] = ()

    @classmethod
    def from_config(
        cls, type_: SchedulerType, config: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
    ) -> Self:
        """Read a checkpoint's scheduler_config.json as a scheduler of this type would.

        What the file does not say has the default of the type's class in diffusers and what the class does not know
        is left out, which is what `Scheduler.from_config` does when a pipeline's scheduler is replaced.

        Args:
            type_: the scheduler.
            config: the file.
            overrides: settings that are asked for explicitly; unlike the file's, all of them must be known.

        Raises:
            BadInputError: something is asked for that is not served.
        """
        asked = overrides or {}
        family = _CLASSES[type_]
        for name in asked.keys() - family.defaults.keys():
            raise BadInputError(Reason.UNSUPPORTED_SCHEDULER, f"the scheduler {type_} has no {name}: leave it out")
        said = {name: value for name, value in config.items() if name in family.defaults and value is not None}
        values = {**family.defaults, **said, **asked}
        for name, spellings in family.read_as.items():
            values[name] = spellings.get(values[name], values[name])
        for name, choices in family.served.items():
            if values[name] not in choices:
                raise _unsupported(name, values[name], f"use {' or '.join(map(str, choices))}")
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        try:
            return cls.model_validate({"type": type_, **known})
        except ValidationError as error:
            problem = error.errors()[0]
            raise _unsupported(str(problem["loc"][0]), problem["input"], problem["msg"]) from error


def _unsupported(name: str, value: object, advice: str) -> BadInputError:
    return BadInputError(
        Reason.UNSUPPORTED_SCHEDULER, f"the scheduler has {name}: {value}, which is not served: {advice}"
    )


@dataclass(frozen=True)
class _Class:
    """A class of diffusers: its parameters with their defaults.

    Args:
        defaults: parameter to default; those that `SchedulerSettings` lacks are only checked.
        served: parameter to the values that are served, where the type alone does not say it.
        read_as: values that other classes use, which this one reads as its own.
    """

    defaults: Mapping[str, Any]
    served: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    read_as: Mapping[str, Mapping[object, object]] = field(default_factory=dict)


_ALL = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_OTHER_SIGMAS = {"use_exponential_sigmas": False, "use_beta_sigmas": False}
_SIGMAS = {"use_karras_sigmas": False, **_OTHER_SIGMAS}
_FLOW = {"use_flow_sigmas": False, "use_dynamic_shifting": False}
_MULTISTEP = {**_ALL, **_SIGMAS, **_FLOW, "thresholding": False, "solver_order": 2, "lower_order_final": True}
_SIGMA_LIMITS = {"sigma_min": None, "sigma_max": None}


def _off(*parameters: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    """Parameters that are served with their defaults only."""
    return {name: (default,) for group in parameters for name, default in group.items()}


_THRESHOLDING = {"thresholding": False}
_EULER_ONLY = {"interpolation_type": "linear", "timestep_type": "discrete", **_SIGMA_LIMITS}
_DPM_ONLY = {"use_lu_lambdas": False, "variance_type": None}

_CLASSES: Mapping[SchedulerType, _Class] = {
    SchedulerType.DDIM: _Class(
        {**_ALL, **_ZERO_SNR, **_THRESHOLDING, "timestep_spacing": "leading", "set_alpha_to_one": True},
        _off(_THRESHOLDING),
    ),
    SchedulerType.EULER: _Class(
        {**_ALL, **_ZERO_SNR, **_SIGMAS, **_EULER_ONLY, "final_sigmas_type": "zero"},
        _off(_OTHER_SIGMAS, _EULER_ONLY),
    ),
    SchedulerType.HEUN: _Class(
        {**_ALL, **_SIGMAS, "beta_start": 0.00085, "beta_end": 0.012, "final_sigmas_type": "zero"},
        {**_off(_OTHER_SIGMAS), "final_sigmas_type": ("zero",)},
    ),
    SchedulerType.PNDM: _Class(
        # The class's own default are Runge-Kutta steps, but every checkpoint made for this pipeline skips them.
        {**_ALL, "timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": True},
        {"skip_prk_steps": (True,), "prediction_type": ("epsilon", "v_prediction")},
    ),
    SchedulerType.DPM_SOLVER_MULTISTEP: _Class(
        {
            **_MULTISTEP, **_ZERO_SNR, **_DPM_ONLY, "final_sigmas_type": "zero", "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint", "euler_at_final": False, "lambda_min_clipped": -math.inf,
        },
        {
            **_off(_OTHER_SIGMAS, _FLOW, _THRESHOLDING, _DPM_ONLY), "algorithm_type": ("dpmsolver++",),
            "solver_type": ("midpoint", "heun"),
        },
        {"algorithm_type": {"deis": "dpmsolver++"}, "solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint")},
    ),
    SchedulerType.DEIS_MULTISTEP: _Class(
        {**_MULTISTEP, "algorithm_type": "deis"},
        {**_off(_OTHER_SIGMAS, _FLOW, _THRESHOLDING), "algorithm_type": ("deis",)},
        {"algorithm_type": {"dpmsolver": "deis", "dpmsolver++": "deis"}},
    ),
    SchedulerType.UNIPC_MULTISTEP: _Class(
        {
            **_MULTISTEP, **_ZERO_SNR, **_SIGMA_LIMITS, "final_sigmas_type": "zero", "predict_x0": True,
            "solver_type": "bh2", "disable_corrector": (), "solver_p": None,
        },
        {
            **_off(_OTHER_SIGMAS, _FLOW, _THRESHOLDING, _SIGMA_LIMITS), "predict_x0": (True,), "solver_p": (None,),
            "solver_type": ("bh1", "bh2"),
        },
        {"solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")},
    ),
}  # fmt: skip


def defaults(type_: SchedulerType) -> Mapping[str, Any]:
    """What a scheduler of this type knows, with what it takes where a configuration says nothing."""
    return _CLASSES[type_].defaults
