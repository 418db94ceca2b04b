"""A checkpoint's scheduler configuration is read as diffusers reads it, and what is not served is named."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import diffusers
import pytest
from diffusion_builder.schedule import SchedulerSettings, SchedulerType
from diffusion_builder.schedule.settings import defaults

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSES: Mapping[SchedulerType, Any] = {
    type_: getattr(diffusers, f"{type_}DiscreteScheduler", None) or getattr(diffusers, f"{type_}Scheduler")
    for type_ in SchedulerType
}
# Forced by the pipeline, or only meaningful with something that is refused.
_NOT_READ = {
    "steps_offset", "clip_sample", "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value",
    "flow_shift", "time_shift_type", "shift_terminal",
}  # fmt: skip


@pytest.mark.parametrize("type_", SchedulerType)
def test_defaults_are_those_of_the_class_in_diffusers(type_: SchedulerType) -> None:
    parameters = inspect.signature(_CLASSES[type_].__init__).parameters
    theirs = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    ours = dict(defaults(type_))
    if type_ is SchedulerType.PNDM:
        assert ours.pop("skip_prk_steps") is True
        assert theirs.pop("skip_prk_steps") is False
    if type_ is SchedulerType.UNIPC_MULTISTEP:
        ours["disable_corrector"] = list(ours["disable_corrector"])
    if type_ is SchedulerType.HEUN:
        assert ours.pop("final_sigmas_type") == "zero"
    if type_ is SchedulerType.DEIS_MULTISTEP:
        assert theirs.pop("solver_type") == "logrho"
    assert ours == {name: default for name, default in theirs.items() if name not in _NOT_READ}


def test_what_a_class_does_not_know_is_left_out_as_from_config_does() -> None:
    config = {"use_karras_sigmas": True, "rescale_betas_zero_snr": True, "thresholding": True, "unheard_of": 1}
    settings = SchedulerSettings.from_config(SchedulerType.PNDM, config)
    assert not settings.use_karras_sigmas
    assert not settings.rescale_betas_zero_snr


@pytest.mark.parametrize(
    ("type_", "name", "value"),
    [
        (SchedulerType.DDIM, "thresholding", True),
        (SchedulerType.EULER, "timestep_spacing", "other"),
        (SchedulerType.EULER, "beta_schedule", "exotic"),
        (SchedulerType.EULER, "prediction_type", "flow_prediction"),
        (SchedulerType.EULER, "use_exponential_sigmas", True),
        (SchedulerType.EULER, "interpolation_type", "log_linear"),
        (SchedulerType.EULER, "num_train_timesteps", "many"),
        (SchedulerType.PNDM, "skip_prk_steps", False),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "algorithm_type", "sde-dpmsolver++"),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "use_lu_lambdas", True),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "thresholding", True),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "solver_order", 4),
        (SchedulerType.UNIPC_MULTISTEP, "predict_x0", False),
        (SchedulerType.UNIPC_MULTISTEP, "use_flow_sigmas", True),
    ],
)
def test_what_is_not_served_is_named_rather_than_ignored(type_: SchedulerType, name: str, value: object) -> None:
    with pytest.raises(BadInputError, match=f"{name}: {value}".replace("+", r"\+")) as caught:
        SchedulerSettings.from_config(type_, {name: value})
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEDULER


def test_settings_that_are_asked_for_must_be_known_by_the_scheduler() -> None:
    with pytest.raises(BadInputError, match="DDIM has no use_karras_sigmas"):
        SchedulerSettings.from_config(SchedulerType.DDIM, {}, {"use_karras_sigmas": True})


def test_settings_that_are_asked_for_win_over_the_file() -> None:
    settings = SchedulerSettings.from_config(
        SchedulerType.EULER, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}
    )
    assert settings.timestep_spacing == "trailing"


def test_null_in_the_file_is_the_default() -> None:
    settings = SchedulerSettings.from_config(SchedulerType.EULER, {"use_karras_sigmas": None, "trained_betas": None})
    assert settings == SchedulerSettings.from_config(SchedulerType.EULER, {})
