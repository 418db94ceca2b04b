"""Tables do what diffusers' schedulers do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import pytest
import torch
from diffusion_builder.schedule import Schedule, SchedulerSettings, SchedulerType, schedule
from numpy.typing import NDArray

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

Latent = NDArray[np.float32]
_CLASSES: Mapping[SchedulerType, Any] = {
    SchedulerType.DDIM: diffusers.DDIMScheduler,
    SchedulerType.EULER: diffusers.EulerDiscreteScheduler,
    SchedulerType.HEUN: diffusers.HeunDiscreteScheduler,
    SchedulerType.PNDM: diffusers.PNDMScheduler,
    SchedulerType.DPM_SOLVER_MULTISTEP: diffusers.DPMSolverMultistepScheduler,
    SchedulerType.DEIS_MULTISTEP: diffusers.DEISMultistepScheduler,
    SchedulerType.UNIPC_MULTISTEP: diffusers.UniPCMultistepScheduler,
}
# What every Stable Diffusion checkpoint says, and what its pipeline forces on those that say something else.
_CONFIG: Mapping[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True,
}  # fmt: skip
_NOISE = np.random.default_rng(2).standard_normal((1, 4, 8, 8)).astype(np.float32)
_LIMIT = 3e-5
_SPACINGS = ("leading", "trailing", "linspace")
_MULTISTEP = (SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.DEIS_MULTISTEP, SchedulerType.UNIPC_MULTISTEP)
_WITH_KARRAS = (SchedulerType.EULER, SchedulerType.HEUN, *_MULTISTEP)
_WITH_ZERO_SNR = (
    SchedulerType.DDIM, SchedulerType.EULER, SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.UNIPC_MULTISTEP,
)  # fmt: skip


def _model(model_input: Latent, timestep: float) -> Latent:
    """Not linear, mixes pixels, depends on the timestep, and answers as large as noise is."""
    bent = np.tanh(0.8 * model_input + np.float32(np.sin(timestep / 300)))
    answer: Latent = np.float32(1.1) * bent + np.float32(0.1) * np.cos(3 * model_input[..., ::-1])
    return answer


def _by_diffusers(type_: SchedulerType, config: Mapping[str, Any], steps: int) -> list[Latent]:
    """The first latent and those after every call."""
    scheduler = _CLASSES[type_].from_config(config)
    scheduler.set_timesteps(steps)
    latent = torch.from_numpy(_NOISE) * scheduler.init_noise_sigma
    latents = [latent.numpy()]
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latent, timestep).numpy()
        latent = scheduler.step(torch.from_numpy(_model(model_input, float(timestep))), timestep, latent).prev_sample
        latents.append(latent.numpy())
    return latents


def _by_table(plan: Schedule) -> list[Latent]:
    state = np.zeros((plan.slots, *_NOISE.shape), np.float32)
    state[0] = _NOISE * np.float32(plan.initial_scale)
    model_input = state[0] * np.float32(plan.input_scale)
    latents = [state[0]]
    for matrix, timestep in zip(plan.table[: plan.calls], plan.timesteps, strict=False):
        slots = np.concatenate([state, _model(model_input, float(timestep))[None]])
        mixed = np.tensordot(matrix, slots, axes=1)
        state, model_input = mixed[:-1], mixed[-1]
        latents.append(state[0])
    return latents


@dataclass(frozen=True)
class Error:
    """Largest difference of any latent on the way.

    Args:
        absolute: as it is.
        relative: in units of the largest value so far, where that exceeds one: the digits that float32 loses in a
            very noisy, large latent are not found again.
    """

    absolute: float
    relative: float


def _error(type_: SchedulerType, config: Mapping[str, Any], steps: int) -> Error:
    ours = _by_table(schedule(SchedulerSettings.from_config(type_, config), steps))
    theirs = _by_diffusers(type_, config, steps)
    errors = [float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True)]
    units = accumulate((float(np.abs(latent).max()) for latent in theirs), max, initial=1.0)
    next(units)
    return Error(max(errors), max(error / unit for error, unit in zip(errors, units, strict=True)))


def _plan(type_: SchedulerType, steps: int, **config: object) -> Schedule:
    return schedule(SchedulerSettings.from_config(type_, {**_CONFIG, **config}), steps)


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("steps", [1, 4, 20, 50])
@pytest.mark.parametrize("spacing", _SPACINGS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_latent_equals_that_of_diffusers(type_: SchedulerType, steps: int, spacing: str, prediction: str) -> None:
    if type_ is SchedulerType.PNDM and prediction == "sample":
        with pytest.raises(BadInputError, match="prediction_type: sample"):
            _plan(type_, steps, prediction_type=prediction)
        return
    served = min(steps, 32) if type_ is SchedulerType.HEUN else steps
    config = {**_CONFIG, "timestep_spacing": spacing, "prediction_type": prediction}
    error = _error(type_, config, served)
    assert error.absolute <= 1e-3
    assert error.relative <= _LIMIT


@pytest.mark.parametrize("type_", _WITH_KARRAS)
@pytest.mark.parametrize("steps", [4, 20, 30])
@pytest.mark.parametrize("spacing", _SPACINGS)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_karras_levels_are_those_of_diffusers(type_: SchedulerType, steps: int, spacing: str, final: str) -> None:
    config = {**_CONFIG, "use_karras_sigmas": True, "timestep_spacing": spacing}
    if type_ in {SchedulerType.EULER, SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.UNIPC_MULTISTEP}:
        config["final_sigmas_type"] = final
    assert _error(type_, config, steps).relative <= _LIMIT


@pytest.mark.parametrize("type_", _WITH_ZERO_SNR)
@pytest.mark.parametrize("steps", [4, 20, 50])
@pytest.mark.parametrize("spacing", _SPACINGS)
def test_zero_terminal_snr_equals_diffusers(type_: SchedulerType, steps: int, spacing: str) -> None:
    config = {
        **_CONFIG, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": spacing,
    }  # fmt: skip
    assert _error(type_, config, steps).relative <= _LIMIT


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(("betas", "prediction"), [("linear", "epsilon"), ("squaredcos_cap_v2", "v_prediction")])
def test_beta_schedules_are_those_of_diffusers(type_: SchedulerType, steps: int, betas: str, prediction: str) -> None:
    # Other spacings start the cosine schedule at sigma 20,000, where diffusers' own float32 loses four digits.
    config = {**_CONFIG, "beta_schedule": betas, "prediction_type": prediction, "timestep_spacing": "leading"}
    assert _error(type_, config, steps).relative <= _LIMIT


@pytest.mark.parametrize("type_", _MULTISTEP)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("solver", ["midpoint", "heun", "bh1", "bh2", "logrho"])
@pytest.mark.parametrize(("steps", "lower_order_final"), [(4, True), (4, False), (20, True), (20, False)])
def test_solver_orders_and_types_are_those_of_diffusers(
    type_: SchedulerType, order: int, solver: str, steps: int, *, lower_order_final: bool
) -> None:
    config = {
        **_CONFIG, "solver_order": order, "solver_type": solver, "lower_order_final": lower_order_final,
        "final_sigmas_type": "sigma_min",
    }  # fmt: skip
    assert _error(type_, config, steps).relative <= _LIMIT


@pytest.mark.parametrize(
    ("type_", "config"),
    [
        (SchedulerType.UNIPC_MULTISTEP, {"disable_corrector": [0, 1]}),
        (SchedulerType.DPM_SOLVER_MULTISTEP, {"euler_at_final": True, "final_sigmas_type": "sigma_min"}),
        (SchedulerType.DPM_SOLVER_MULTISTEP, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}),
        (
            SchedulerType.DPM_SOLVER_MULTISTEP,
            {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"},
        ),
        (SchedulerType.DPM_SOLVER_MULTISTEP, {"rescale_betas_zero_snr": True, "lambda_min_clipped": -4.0}),
        (SchedulerType.DDIM, {"set_alpha_to_one": True}),
        (SchedulerType.PNDM, {"set_alpha_to_one": True}),
        (SchedulerType.PNDM, {"num_train_timesteps": 500}),
        (SchedulerType.UNIPC_MULTISTEP, {"num_train_timesteps": 500}),
    ],
)
def test_rarer_settings_are_those_of_diffusers(type_: SchedulerType, config: Mapping[str, Any]) -> None:
    assert _error(type_, {**_CONFIG, **config}, 20).relative <= _LIMIT


@pytest.mark.parametrize("type_", SchedulerType)
def test_what_the_file_does_not_say_is_as_in_diffusers(type_: SchedulerType) -> None:
    forced = {"steps_offset": 1}
    if type_ is SchedulerType.DDIM:
        forced["clip_sample"] = False
    if type_ is SchedulerType.PNDM:
        forced["skip_prk_steps"] = True
    ours = _by_table(schedule(SchedulerSettings.from_config(type_, {}), 20))
    theirs = _by_diffusers(type_, forced, 20)
    assert max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True)) <= 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 63])
def test_pndm_calls_the_denoiser_once_more_than_it_has_steps_as_diffusers_does(steps: int) -> None:
    plan = _plan(SchedulerType.PNDM, steps)
    assert plan.calls == len(_by_diffusers(SchedulerType.PNDM, _CONFIG, steps)) - 1
    assert plan.calls == (steps + 1 if steps > 1 else 1)


def test_heun_calls_the_denoiser_twice_for_each_step_but_the_last() -> None:
    assert [_plan(SchedulerType.HEUN, steps).calls for steps in (1, 2, 32)] == [1, 3, 63]


@pytest.mark.parametrize(("type_", "steps", "calls"), [(SchedulerType.PNDM, 64, 65), (SchedulerType.HEUN, 33, 65)])
def test_more_calls_than_rows_are_refused_with_both_numbers(type_: SchedulerType, steps: int, calls: int) -> None:
    with pytest.raises(BadInputError, match=f"{steps} steps .* need {calls} denoiser calls.* 64"):
        _plan(type_, steps)


@pytest.mark.parametrize("type_", SchedulerType)
def test_all_tiers_of_a_scheduler_have_the_same_slots(type_: SchedulerType) -> None:
    assert len({_plan(type_, steps).slots for steps in (1, 2, 3, 20, 32)}) == 1


@pytest.mark.parametrize("type_", SchedulerType)
def test_timesteps_fall_towards_the_picture_and_have_rows(type_: SchedulerType) -> None:
    plan = _plan(type_, 20)
    used = plan.timesteps[: plan.calls].tolist()
    assert all(before >= after >= 0 for before, after in pairwise(used))
    assert not plan.table[plan.calls :].any()
    assert not plan.timesteps[plan.calls :].any()
    assert (plan.table.shape, plan.timesteps.shape) == ((64, plan.slots + 1, plan.slots + 1), (64,))


@pytest.mark.parametrize("steps", range(1, 65))
def test_trailing_spacing_never_leaves_the_schedule(steps: int) -> None:
    plan = _plan(SchedulerType.EULER, steps, timestep_spacing="trailing")
    assert plan.calls == steps
    assert plan.timesteps.min() >= 0


def test_trained_betas_are_used() -> None:
    betas = np.linspace(0.001, 0.02, 1000).tolist()
    given = _plan(SchedulerType.DDIM, 4, trained_betas=betas)
    same = _plan(SchedulerType.DDIM, 4, beta_schedule="linear", beta_start=0.001, beta_end=0.02)
    assert np.allclose(given.table, same.table)


@pytest.mark.parametrize("steps", [0, -1, 65])
def test_step_count_out_of_range_is_refused(steps: int) -> None:
    with pytest.raises(BadInputError, match="1 to 64"):
        _plan(SchedulerType.DDIM, steps)


@pytest.mark.parametrize(
    ("type_", "config"),
    [
        (SchedulerType.DDIM, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        (SchedulerType.UNIPC_MULTISTEP, {"lower_order_final": False}),
        (SchedulerType.UNIPC_MULTISTEP, {"lower_order_final": False, "solver_order": 3}),
    ],
)
def test_settings_for_which_diffusers_computes_nan_are_refused(
    type_: SchedulerType, config: Mapping[str, object]
) -> None:
    with pytest.raises(BadInputError, match="divides by zero") as caught:
        _plan(type_, 20, **config)
    assert caught.value.reason is Reason.UNSUPPORTED_SCHEDULER


@pytest.mark.parametrize("type_", [SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.UNIPC_MULTISTEP])
def test_karras_levels_on_one_timestep_are_refused_where_diffusers_fails(type_: SchedulerType) -> None:
    config = {**_CONFIG, "rescale_betas_zero_snr": True, "use_karras_sigmas": True, "prediction_type": "v_prediction"}
    with pytest.raises((IndexError, AssertionError)):
        _by_diffusers(type_, config, 50)
    with pytest.raises(BadInputError, match="fall on timestep 999"):
        schedule(SchedulerSettings.from_config(type_, config), 50)
