"""A checkpoint's scheduler configuration is read as diffusers reads it, and what is not served is named."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest

from diffusion_builder.models.schedule import ScheduleError, SchedulerSettings, SchedulerType
from diffusion_builder.models.schedule.classes import class_of
from tests.support.builder.samplers import CLASSES

# Forced by the pipeline, or only meaningful with something that is rejected.
_NOT_READ = {
    "steps_offset", "clip_sample", "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value",
    "flow_shift", "time_shift_type", "shift_terminal",
}  # fmt: skip


@pytest.mark.parametrize("type_", SchedulerType)
def test_defaults_are_those_of_the_class_in_diffusers(type_: SchedulerType) -> None:
    parameters = inspect.signature(CLASSES[type_].__init__).parameters
    expected = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    actual = dict(class_of(type_).defaults)
    if type_ is SchedulerType.PNDM:
        assert actual.pop("skip_prk_steps") is True
        assert expected.pop("skip_prk_steps") is False
    if type_ is SchedulerType.UNIPC_MULTISTEP:
        actual["disable_corrector"] = list(actual["disable_corrector"])
    if type_ is SchedulerType.DEIS_MULTISTEP:
        assert expected.pop("solver_type") == "logrho"
    assert actual == {name: default for name, default in expected.items() if name not in _NOT_READ}


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
        (SchedulerType.EULER, "use_beta_sigmas", True),
        (SchedulerType.EULER_ANCESTRAL, "prediction_type", "sample"),
        (SchedulerType.DDPM, "variance_type", "learned_range"),
        (SchedulerType.DDPM, "variance_type", "fixed_large_log"),
        (SchedulerType.DDPM, "beta_schedule", "sigmoid"),
        (SchedulerType.LCM, "original_inference_steps", 1001),
        (SchedulerType.LCM, "timestep_scaling", 0),
        (SchedulerType.DDIM, "trained_betas", (0.1, "b")),
        (SchedulerType.DDIM, "beta_start", float("nan")),
        (SchedulerType.DDIM, "num_train_timesteps", True),
        (SchedulerType.EULER, "interpolation_type", "log_linear"),
        (SchedulerType.EULER, "num_train_timesteps", "many"),
        (SchedulerType.PNDM, "skip_prk_steps", False),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "algorithm_type", "sde-dpmsolver"),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "use_lu_lambdas", True),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "thresholding", True),
        (SchedulerType.DPM_SOLVER_MULTISTEP, "solver_order", 4),
        (SchedulerType.UNIPC_MULTISTEP, "predict_x0", False),
        (SchedulerType.UNIPC_MULTISTEP, "use_flow_sigmas", True),
    ],
)
def test_what_is_not_served_is_named_rather_than_ignored(type_: SchedulerType, name: str, value: object) -> None:
    with pytest.raises(ScheduleError, match=re.escape(f"{name}: {value}")):
        SchedulerSettings.from_config(type_, {name: value})


def test_settings_that_are_asked_for_must_be_known_by_the_scheduler() -> None:
    with pytest.raises(ScheduleError, match="DDIM has no use_karras_sigmas"):
        SchedulerSettings.from_config(SchedulerType.DDIM, {}, {"use_karras_sigmas": True})


def test_settings_that_are_asked_for_win_over_the_file() -> None:
    settings = SchedulerSettings.from_config(
        SchedulerType.EULER, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"}
    )
    assert settings.timestep_spacing == "trailing"


def test_null_in_the_file_is_the_default() -> None:
    settings = SchedulerSettings.from_config(SchedulerType.EULER, {"use_karras_sigmas": None, "trained_betas": None})
    assert settings == SchedulerSettings.from_config(SchedulerType.EULER, {})


def test_both_kinds_of_noise_levels_at_once_are_rejected() -> None:
    with pytest.raises(ScheduleError, match="leave out use_karras_sigmas"):
        SchedulerSettings.from_config(SchedulerType.EULER, {"use_karras_sigmas": True, "use_exponential_sigmas": True})


def test_a_variance_that_the_model_does_not_predict_is_no_matter_to_dpm_solver() -> None:
    settings = SchedulerSettings.from_config(SchedulerType.DPM_SOLVER_MULTISTEP, {"variance_type": "fixed_small"})
    assert settings == SchedulerSettings.from_config(SchedulerType.DPM_SOLVER_MULTISTEP, {})
    with pytest.raises(ScheduleError, match="variance_type: learned"):
        SchedulerSettings.from_config(SchedulerType.DPM_SOLVER_MULTISTEP, {"variance_type": "learned"})


@pytest.mark.parametrize("type_", SchedulerType)
def test_settings_survive_json(type_: SchedulerType) -> None:
    config = {"trained_betas": [0.1, 0.2], "num_train_timesteps": 200, "disable_corrector": [1]}
    settings = SchedulerSettings.from_config(type_, config)
    assert SchedulerSettings.from_json(json.loads(json.dumps(settings.to_json(), allow_nan=False))) == settings


@pytest.mark.parametrize(
    ("change", "says"), [({"colour": 1}, "colour"), ({"beta_end": None}, "beta_end"), ({"type": "Magic"}, "Magic")]
)
def test_json_that_is_no_settings_is_rejected(change: dict[str, Any], says: str) -> None:
    body = SchedulerSettings.from_config(SchedulerType.DDIM, {}).to_json() | change
    with pytest.raises(ScheduleError, match=says):
        SchedulerSettings.from_json(body)


@pytest.mark.parametrize("type_", SchedulerType)
def test_a_pipeline_that_overrides_nothing_takes_the_offset_of_the_file(type_: SchedulerType) -> None:
    config = {"steps_offset": 3, "clip_sample": False}
    assert SchedulerSettings.from_config(type_, config).steps_offset == 1
    settings = SchedulerSettings.from_config(type_, config, is_forced=False)
    assert settings.steps_offset == 3
    assert SchedulerSettings.from_json(settings.to_json()) == settings
    assert SchedulerSettings.from_config(type_, {"clip_sample": False}, is_forced=False).steps_offset == 0


@pytest.mark.parametrize(
    ("type_", "config"),
    [
        (SchedulerType.DDIM, {}),
        (SchedulerType.DDPM, {"clip_sample": True}),
        (SchedulerType.LCM, {"clip_sample": True}),
        (SchedulerType.TCD, {"clip_sample": True}),
    ],
)
def test_a_clipped_sample_that_no_pipeline_overrides_is_rejected(
    type_: SchedulerType, config: dict[str, object]
) -> None:
    with pytest.raises(ScheduleError, match="clip_sample: True"):
        SchedulerSettings.from_config(type_, config, is_forced=False)
