"""What a schedule is computed from, read from a checkpoint as diffusers' class of that type would read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from .classes import EDM, SDE, SchedulerType, class_of
from .errors import ScheduleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class SchedulerSettings:
    """Settings by the names of diffusers' configurations.

    A default here stands for a class that does not know the setting, and changes nothing; see `classes.py` for those
    of the classes.

    Raises:
        ScheduleError: a value is not supported.
    """

    type: SchedulerType
    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    prediction_type: str
    timestep_spacing: str
    rescale_betas_zero_snr: bool = False
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    final_sigmas_type: str = "sigma_min"
    set_alpha_to_one: bool = False
    solver_order: int = 1
    solver_type: str = ""
    algorithm_type: str = ""
    lower_order_final: bool = False
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf
    disable_corrector: tuple[int, ...] = ()
    variance_type: str | None = None
    original_inference_steps: int = 0
    timestep_scaling: float = 1.0
    sigma_min: float | None = None
    sigma_max: float | None = None
    sigma_data: float = 0.0
    sigma_schedule: str = ""
    rho: float = 0.0
    # StableDiffusionPipeline.__init__ overrides the configured value of every scheduler with this one.
    steps_offset: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            allowed, advice = _RULES[field.name]
            value = getattr(self, field.name)
            if not allowed(value):
                raise _unsupported(field.name, value, advice)
        if self.original_inference_steps > self.num_train_timesteps:
            raise _unsupported(
                "original_inference_steps", self.original_inference_steps, f"use at most {self.num_train_timesteps}"
            )
        if self.use_karras_sigmas and self.use_exponential_sigmas:
            raise _unsupported("use_exponential_sigmas", value=True, advice="leave out use_karras_sigmas")
        if self.type in EDM:
            self._check_edm()

    def _check_edm(self) -> None:
        low, high = self.sigma_limits
        if low >= high:
            raise _unsupported("sigma_min", low, f"use less than sigma_max, {high}")
        if self.algorithm_type == SDE and self.solver_order > 2:  # noqa: PLR2004 - what diffusers has
            raise _unsupported("solver_order", self.solver_order, f"use 1 or 2 with {SDE}")

    @property
    def sigma_limits(self) -> tuple[float, float]:
        """Smallest and largest noise level of the formulation of EDM."""
        return self.sigma_min or 0.0, self.sigma_max or 0.0

    @property
    def is_stochastic(self) -> bool:
        """Whether its steps may draw noise."""
        return self.type in _STOCHASTIC or self.algorithm_type == SDE

    @property
    def max_steps(self) -> int:
        """Most steps of a schedule, of which any 64 calls can be served."""
        # Consistency models walk through the steps of their distillation. Every multistep spacing needs one training
        # timestep more than there are steps.
        return self.original_inference_steps if self.type in _DISTILLED else self.num_train_timesteps - 1

    @classmethod
    def from_config(
        cls,
        type_: SchedulerType,
        config: Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        *,
        is_forced: bool = True,
    ) -> Self:
        """Read a checkpoint's scheduler_config.json as a scheduler of this type would.

        What the file does not say has the default of the type's class in diffusers and what the class does not know
        is left out, which is what `Scheduler.from_config` does when a pipeline's scheduler is replaced.

        Args:
            type_: the scheduler.
            config: the file.
            overrides: settings that are requested explicitly; unlike the file's, all of them must be known.
            is_forced: whether the pipeline overrides offset and clipping; that of Stable Diffusion XL does not.

        Raises:
            ScheduleError: something is requested that is not supported.
        """
        _check_formulation(type_, str(config.get("_class_name", "")))
        explicit = overrides or {}
        scheduler = class_of(type_)
        for name in explicit.keys() - scheduler.defaults.keys():
            raise ScheduleError(f"the scheduler {type_} has no {name}: leave it out")
        file_values = {
            name: value for name, value in config.items() if name in scheduler.defaults and value is not None
        }
        values = {**scheduler.defaults, **file_values, **explicit}
        for name, spellings in scheduler.read_as.items():
            if isinstance(values[name], str):
                values[name] = spellings.get(values[name], values[name])
        for name, choices in scheduler.supported.items():
            if values[name] not in choices:
                raise _unsupported(name, values[name], f"use {' or '.join(map(str, choices))}")
        supported = {name: value for name, value in values.items() if name in _RULES}
        # The only algorithm that the type alone does not say.
        if supported.get("algorithm_type") != SDE:
            supported.pop("algorithm_type", None)
        unforced = {} if is_forced else _unforced(type_, config)
        return cls._of({"type": type_, **supported, **scheduler.implied, **unforced})

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ScheduleError: it is something else.
        """
        unknown = sorted(body.keys() - _RULES.keys())
        missing = sorted({"type", *_REQUIRED} - body.keys())
        if unknown or missing:
            raise ScheduleError(f"these are no scheduler's settings: {', '.join(unknown + missing)}")
        return cls._of(body)

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            type_ = SchedulerType(tuples.pop("type"))
        except ValueError as error:
            raise ScheduleError(f"{error}: use one of {', '.join(SchedulerType)}") from error
        return cls(type=type_, **tuples)

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, without settings that change nothing."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in {"type", *_REQUIRED} or getattr(self, field.name) != field.default
        }


def _check_formulation(type_: SchedulerType, class_name: str) -> None:
    """A model answers what its formulation says: a scheduler of the other one would make noise of it."""
    is_edm = class_name.startswith("EDM")
    if class_name and is_edm is not (type_ in EDM):
        names = " or ".join(EDM) if is_edm else "another type"
        raise ScheduleError(
            f"the checkpoint's scheduler is {class_name}, which the scheduler {type_} cannot stand for (EDM): "
            f"use {names}"
        )


def _unforced(type_: SchedulerType, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What other pipelines than Stable Diffusion's leave as the file or the class says it."""
    if type_ in _CLIPPING and config.get("clip_sample", _CLIPPING[type_]):
        raise _unsupported("clip_sample", value=True, advice="set it to false in scheduler_config.json")
    return {"steps_offset": config.get("steps_offset", 0)}


def _unsupported(name: str, value: object, advice: str) -> ScheduleError:
    return ScheduleError(f"the scheduler has {name}: {value}, which is not supported: {advice}")


def _number(low: float, high: float, *, whole: bool = False) -> Callable[[object], bool]:
    """Numbers in this range, ends included."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool) and low <= float(value) <= high  # type: ignore[arg-type]


def _one_of(*choices: object) -> tuple[Callable[[object], bool], str]:
    return (lambda value: value in choices), f"use {' or '.join(map(str, choices))}"


def _each_item(rule: Callable[[object], bool], *, none: bool = False) -> Callable[[object], bool]:
    return lambda value: (none and value is None) or (isinstance(value, tuple) and all(map(rule, value)))


def _sigma(value: object) -> bool:
    return value is None or _number(1e-9, 1e9)(value)


_FLAG = (lambda value: isinstance(value, bool), "use true or false")
_BETA = _number(0, 1 - 1e-9)
_RULES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "type": (lambda value: isinstance(value, SchedulerType), "use a scheduler's name"),
    "num_train_timesteps": (_number(2, 1_000_000, whole=True), "use a whole number, at least 2"),
    "beta_start": (_BETA, "use a number from 0 to below 1"),
    "beta_end": (_BETA, "use a number from 0 to below 1"),
    "beta_schedule": _one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": (_each_item(_BETA, none=True), "use a list of numbers from 0 to below 1"),
    "prediction_type": _one_of("epsilon", "v_prediction", "sample"),
    "timestep_spacing": _one_of("leading", "trailing", "linspace"),
    "rescale_betas_zero_snr": _FLAG,
    "use_karras_sigmas": _FLAG,
    "use_exponential_sigmas": _FLAG,
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "set_alpha_to_one": _FLAG,
    "solver_order": (_number(1, 3, whole=True), "use 1, 2 or 3"),
    "solver_type": (lambda value: isinstance(value, str), "use a solver's name"),
    "algorithm_type": _one_of("", SDE),
    "lower_order_final": _FLAG,
    "euler_at_final": _FLAG,
    "lambda_min_clipped": (_number(-math.inf, math.inf), "use a number"),
    "disable_corrector": (_each_item(_number(0, 1_000_000, whole=True)), "use a list of steps, counted from 0"),
    "variance_type": (lambda value: value is None or isinstance(value, str), "use a variance's name"),
    "original_inference_steps": (_number(0, 1_000_000, whole=True), "use a whole number"),
    "timestep_scaling": (_number(1e-6, 1e6), "use a number above 0"),
    "sigma_min": (_sigma, "use a number above 0"),
    "sigma_max": (_sigma, "use a number above 0"),
    "sigma_data": (_number(0, 1e6), "use a number, at least 0"),
    "sigma_schedule": (
        (lambda value: value in ("", "karras", "exponential")),
        "use karras or exponential",
    ),
    "rho": (_number(0, 1e6), "use a number, at least 0"),
    "steps_offset": (_number(0, 1_000_000, whole=True), "use a whole number"),
}
# Classes that may clip the predicted sample, and whether they do by default.
_CLIPPING: Mapping[SchedulerType, bool] = {
    SchedulerType.DDIM: True,
    SchedulerType.DDPM: True,
    SchedulerType.HEUN: False,
    SchedulerType.LCM: False,
    SchedulerType.TCD: False,
}
# They draw fresh noise in a step; DDIM and TCD do when a request's eta is not 0.
_STOCHASTIC = (
    SchedulerType.EULER_ANCESTRAL,
    SchedulerType.DDPM,
    SchedulerType.LCM,
    SchedulerType.TCD,
    SchedulerType.DDIM,
)
_DISTILLED = (SchedulerType.LCM, SchedulerType.TCD)
_REQUIRED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "timestep_spacing",
)  # fmt: skip
