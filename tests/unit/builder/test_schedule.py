"""Tables do what diffusers' schedulers do."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diffusion_builder.models.schedule import (
    MAX_CALLS,
    Schedule,
    ScheduleError,
    SchedulerSettings,
    SchedulerType,
    begin_for,
    calls_for,
    schedule,
)
from diffusion_contract import tensors
from tests.support.builder.samplers import CLASSES, CONFIG, Case, by_diffusers, by_table, difference

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT = 3e-5
_SPACINGS = ("leading", "trailing", "linspace")
_MULTISTEP = (SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.DEIS_MULTISTEP, SchedulerType.UNIPC_MULTISTEP)
_RESPACED = (SchedulerType.EULER, SchedulerType.HEUN, *_MULTISTEP)
_STOCHASTIC = (SchedulerType.EULER_ANCESTRAL, SchedulerType.DDPM, SchedulerType.LCM)
_WITH_ZERO_SNR = (
    SchedulerType.DDIM, SchedulerType.DDPM, SchedulerType.EULER, SchedulerType.EULER_ANCESTRAL, SchedulerType.LCM,
    SchedulerType.TCD, SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.UNIPC_MULTISTEP,
)  # fmt: skip
_DISTILLED = (SchedulerType.LCM, SchedulerType.TCD)
_EDM = (SchedulerType.EDM_EULER, SchedulerType.EDM_DPM_SOLVER_MULTISTEP)
_WITHOUT_SAMPLE = (SchedulerType.PNDM, SchedulerType.EULER_ANCESTRAL, *_EDM)
_OF_NOISE = [type_ for type_ in SchedulerType if type_ not in {SchedulerType.LCM, *_EDM}]


def _plan(type_: SchedulerType, steps: int, **config: object) -> Schedule:
    return Case(type_, steps, config=config).plan


def _served(type_: SchedulerType, steps: int) -> int:
    return min(steps, 32) if type_ is SchedulerType.HEUN else steps


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("steps", [4, 20, 50])
@pytest.mark.parametrize("spacing", _SPACINGS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_latent_equals_that_of_diffusers(type_: SchedulerType, steps: int, spacing: str, prediction: str) -> None:
    config = {"timestep_spacing": spacing, "prediction_type": prediction}
    if type_ in _WITHOUT_SAMPLE and prediction == "sample":
        with pytest.raises(ScheduleError, match="prediction_type: sample"):
            _plan(type_, steps, **config)
        return
    error = difference(Case(type_, _served(type_, steps), config=config))
    assert error.absolute <= 1e-3
    assert error.relative <= _LIMIT
    assert error.clean <= 1e-3


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize(("steps", "begin"), [(5, 1), (10, 6), (30, 10), (63, 62)])
@pytest.mark.parametrize("repaint", [False, True])
def test_a_schedule_that_starts_in_an_image_equals_diffusers(
    type_: SchedulerType, steps: int, begin: int, *, repaint: bool
) -> None:
    if type_ in _DISTILLED and steps > 50:
        steps, begin = 50, 49
    error = difference(Case(type_, steps, begin, repaint=repaint))
    assert error.absolute <= 1e-3
    assert error.relative <= _LIMIT


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_repainting_over_the_whole_schedule_equals_diffusers(type_: SchedulerType, prediction: str) -> None:
    error = difference(Case(type_, 20, 0, repaint=True, config={"prediction_type": prediction}))
    assert error.absolute <= 1e-3
    assert error.relative <= _LIMIT


@pytest.mark.parametrize("type_", [SchedulerType.DDIM, SchedulerType.TCD])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("steps", "begin"), [(4, None), (20, None), (30, 10)])
def test_eta_draws_the_noise_of_diffusers(
    type_: SchedulerType, eta: float, prediction: str, steps: int, begin: int | None
) -> None:
    case = Case(type_, steps, begin, eta, config={"prediction_type": prediction})
    assert difference(case).absolute <= 1e-3
    assert any(case.plan.draws) == (eta > 0)


_SDE = {"algorithm_type": "sde-dpmsolver++"}


@pytest.mark.parametrize("solver", [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")])
@pytest.mark.parametrize(("steps", "begin"), [(1, None), (4, None), (20, None), (30, 10)])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("last", ["zero", "sigma_min"])
def test_the_stochastic_dpm_solver_draws_the_noise_of_diffusers(
    solver: tuple[int, str], steps: int, begin: int | None, prediction: str, last: str
) -> None:
    order, type_ = solver
    config = {
        **_SDE, "solver_order": order, "solver_type": type_, "final_sigmas_type": last, "prediction_type": prediction,
    }  # fmt: skip
    case = Case(SchedulerType.DPM_SOLVER_MULTISTEP, steps, begin, repaint=begin is not None, config=config)
    error = difference(case)
    assert error.absolute <= 1e-3
    assert error.relative <= _LIMIT
    # Noise that goes to no noise is none.
    assert case.plan.draws == (*[True] * (case.plan.calls - 1), last != "zero")


@pytest.mark.parametrize("spacing", _SPACINGS)
@pytest.mark.parametrize("sigmas", ["use_karras_sigmas", "use_exponential_sigmas"])
def test_levels_of_the_stochastic_dpm_solver_may_be_respaced(spacing: str, sigmas: str) -> None:
    config = {**_SDE, sigmas: True, "timestep_spacing": spacing}
    assert difference(Case(SchedulerType.DPM_SOLVER_MULTISTEP, 20, config=config)).relative <= _LIMIT


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
@pytest.mark.parametrize("spacing", _SPACINGS)
def test_variances_of_ddpm_are_those_of_diffusers(variance: str, spacing: str) -> None:
    config = {"variance_type": variance, "timestep_spacing": spacing}
    assert difference(Case(SchedulerType.DDPM, 20, config=config)).absolute <= 1e-3


@pytest.mark.parametrize("type_", _DISTILLED)
@pytest.mark.parametrize(("distilled", "steps"), [(50, 1), (50, 7), (40, 40), (20, 3)])
def test_consistency_models_walk_through_the_steps_of_their_distillation(
    type_: SchedulerType, distilled: int, steps: int
) -> None:
    config = {"original_inference_steps": distilled, "timestep_scaling": 3.0}
    assert difference(Case(type_, steps, config=config)).absolute <= 1e-3
    with pytest.raises(ScheduleError, match=f"1 to {distilled} steps"):
        _plan(type_, distilled + 1, **config)


@pytest.mark.parametrize("type_", _RESPACED)
@pytest.mark.parametrize("steps", [4, 20, 30])
@pytest.mark.parametrize("levels", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize(("spacing", "final"), [("leading", "zero"), ("trailing", "sigma_min"), ("linspace", "zero")])
def test_other_noise_levels_are_those_of_diffusers(
    type_: SchedulerType, steps: int, levels: str, spacing: str, final: str
) -> None:
    config = {levels: True, "timestep_spacing": spacing}
    if type_ in {SchedulerType.EULER, SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.UNIPC_MULTISTEP}:
        config["final_sigmas_type"] = final
    assert difference(Case(type_, steps, config=config)).relative <= _LIMIT


@pytest.mark.parametrize("type_", _WITH_ZERO_SNR)
@pytest.mark.parametrize("steps", [4, 20, 50])
@pytest.mark.parametrize("spacing", _SPACINGS)
def test_zero_terminal_snr_equals_diffusers(type_: SchedulerType, steps: int, spacing: str) -> None:
    config = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": spacing}
    assert difference(Case(type_, steps, config=config)).relative <= _LIMIT


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(("betas", "prediction"), [("linear", "epsilon"), ("squaredcos_cap_v2", "v_prediction")])
def test_beta_schedules_are_those_of_diffusers(type_: SchedulerType, steps: int, betas: str, prediction: str) -> None:
    # Other spacings start the cosine schedule at sigma 20,000, where diffusers' own float32 loses four digits.
    config = {"beta_schedule": betas, "prediction_type": prediction, "timestep_spacing": "leading"}
    assert difference(Case(type_, steps, config=config)).relative <= _LIMIT


@pytest.mark.parametrize("type_", _MULTISTEP)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("solver", ["midpoint", "heun", "bh1", "bh2", "logrho"])
@pytest.mark.parametrize(("steps", "lower_order_final"), [(4, True), (4, False), (20, True), (20, False)])
def test_solver_orders_and_types_are_those_of_diffusers(
    type_: SchedulerType, order: int, solver: str, steps: int, *, lower_order_final: bool
) -> None:
    config = {
        "solver_order": order, "solver_type": solver, "lower_order_final": lower_order_final,
        "final_sigmas_type": "sigma_min",
    }  # fmt: skip
    assert difference(Case(type_, steps, config=config)).relative <= _LIMIT


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
    assert difference(Case(type_, 20, config=config)).relative <= _LIMIT


@pytest.mark.parametrize(
    ("type_", "config"),
    [
        (SchedulerType.UNIPC_MULTISTEP, {"disable_corrector": [6, 7]}),
        (SchedulerType.UNIPC_MULTISTEP, {"solver_order": 3}),
        (SchedulerType.DPM_SOLVER_MULTISTEP, {"solver_order": 3}),
        (SchedulerType.DEIS_MULTISTEP, {"solver_order": 3}),
        (SchedulerType.EULER, {"use_karras_sigmas": True}),
        (SchedulerType.HEUN, {"prediction_type": "v_prediction"}),
        (SchedulerType.LCM, {"prediction_type": "sample"}),
    ],
)
def test_history_is_fresh_where_a_schedule_is_begun(type_: SchedulerType, config: Mapping[str, Any]) -> None:
    # Few steps of many, and few of few, which end with lower orders.
    for steps, begin in ((20, 6), (12, 5)):
        assert difference(Case(type_, steps, begin, repaint=True, config=config)).absolute <= 1e-3


@pytest.mark.parametrize("type_", SchedulerType)
def test_what_the_file_does_not_say_is_as_in_diffusers(type_: SchedulerType) -> None:
    settings = SchedulerSettings.from_config(type_, {})
    names = ("sigma_min", "sigma_max", "rho") if type_ in _EDM else ("beta_start", "beta_end", "beta_schedule")
    parameters = CLASSES[type_]().config
    assert {name: getattr(settings, name) for name in names} == {name: parameters[name] for name in names}
    assert schedule(settings, 20).calls == calls_for(type_, 20)


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 32])
def test_calls_are_those_of_diffusers(type_: SchedulerType, steps: int) -> None:
    plan = _plan(type_, steps)
    assert plan.calls == calls_for(type_, steps) == len(by_diffusers(Case(type_, steps)).latents) - 1
    assert plan.calls == {SchedulerType.HEUN: 2 * steps - 1, SchedulerType.PNDM: steps + (steps > 1)}.get(type_, steps)


@pytest.mark.parametrize(("type_", "steps", "calls"), [(SchedulerType.PNDM, 64, 65), (SchedulerType.HEUN, 33, 65)])
def test_more_calls_than_rows_are_rejected_with_both_numbers(type_: SchedulerType, steps: int, calls: int) -> None:
    with pytest.raises(ScheduleError, match=f"{calls} denoiser calls.* 64"):
        _plan(type_, steps)


def test_only_calls_that_are_made_count() -> None:
    assert Case(SchedulerType.HEUN, 300, 280).plan.calls == 39
    assert Case(SchedulerType.DDIM, 900, 850).plan.calls == 50
    assert tensors.MAX_STEPS == MAX_CALLS


@pytest.mark.parametrize("type_", SchedulerType)
def test_empty_slots_change_nothing(type_: SchedulerType) -> None:
    plain, padded = by_table(Case(type_, 4)), by_table(Case(type_, 4), spare_slots=3)
    assert np.abs(np.array(plain.latents) - np.array(padded.latents)).max() <= 1e-5
    assert np.abs(np.array(plain.clean) - np.array(padded.clean)).max() <= 1e-5


@pytest.mark.parametrize("type_", SchedulerType)
def test_all_step_counts_of_a_scheduler_have_the_same_slots(type_: SchedulerType) -> None:
    assert len({_plan(type_, steps).slots for steps in (1, 2, 3, 20, 32)}) == 1


@pytest.mark.parametrize("type_", SchedulerType)
def test_timesteps_fall_towards_the_image_and_have_rows(type_: SchedulerType) -> None:
    plan = _plan(type_, 20)
    used = plan.levels[: plan.calls, 0].tolist()
    assert all(before >= after for before, after in pairwise(used))
    assert used[-1] >= 0 or type_ in _EDM
    assert plan.levels[plan.calls - 1, 2:].tolist() == [1, 0]
    assert not plan.table[plan.calls :].any()
    assert not plan.levels[plan.calls :].any()
    assert (plan.table.shape, plan.levels.shape) == ((64, plan.slots + 1, plan.slots + 2), (64, 4))
    assert any(plan.draws) == (type_ in _STOCHASTIC)


@pytest.mark.parametrize("type_", _OF_NOISE)
@pytest.mark.parametrize("begin", [0, 7])
def test_a_model_that_knows_the_noise_gives_the_clean_sample_at_every_call(type_: SchedulerType, begin: int) -> None:
    plan = Case(type_, 20, begin).plan
    signal, spread = plan.first
    for row, level in zip(plan.table[: plan.calls, -1], plan.levels, strict=False):
        # The latent is signal * clean + spread * noise, and the model's output is the noise.
        assert abs(row[0] * signal - 1) <= 1e-4
        assert abs(row[0] * spread + row[-2]) <= 1e-4
        assert not row[1:-2].any()
        signal, spread = level[2:]


@pytest.mark.parametrize("steps", range(1, 65))
def test_trailing_spacing_never_leaves_the_schedule(steps: int) -> None:
    plan = _plan(SchedulerType.EULER, steps, timestep_spacing="trailing")
    assert plan.calls == steps
    assert plan.levels[:, 0].min() >= 0


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("spacing", _SPACINGS)
def test_the_longest_schedule_is_served_in_pieces(type_: SchedulerType, spacing: str) -> None:
    settings = SchedulerSettings.from_config(type_, {**CONFIG, "timestep_spacing": spacing})
    assert calls_for(type_, 10) == schedule(settings, settings.max_steps, settings.max_steps - 10).calls


def test_trained_betas_are_used() -> None:
    betas = np.linspace(0.001, 0.02, 1000).tolist()
    actual = _plan(SchedulerType.DDIM, 4, trained_betas=betas)
    expected = _plan(SchedulerType.DDIM, 4, beta_schedule="linear", beta_start=0.001, beta_end=0.02)
    assert np.allclose(actual.table, expected.table)


@pytest.mark.parametrize(("steps", "begin", "eta"), [(0, 0, 0), (-1, 0, 0), (1000, 990, 0), (4, 4, 0), (4, 0, 1.5)])
def test_numbers_out_of_range_are_rejected(steps: int, begin: int, eta: float) -> None:
    with pytest.raises(ScheduleError, match=r"1 to 999|must be left|0 to 1"):
        Case(SchedulerType.DDIM, steps, begin, eta).plan  # noqa: B018 - computing it is the point


def test_eta_is_rejected_where_it_would_do_nothing() -> None:
    with pytest.raises(ScheduleError, match="Euler has no eta"):
        Case(SchedulerType.EULER, 4, eta=0.5).plan  # noqa: B018 - computing it is the point


@pytest.mark.parametrize("strength", [1.0, 0.99, 0.8, 0.7, 0.55, 1 / 3, 0.3, 0.1, 0.07])
@pytest.mark.parametrize("steps", [1, 4, 20, 50])
def test_a_strength_runs_as_many_steps_as_the_ensemble_has(strength: float, steps: int) -> None:
    settings = SchedulerSettings.from_config(SchedulerType.DDIM, CONFIG)
    total, begin = begin_for(settings, steps, strength)
    # As diffusers' `get_timesteps` computes it.
    assert min(int(total * strength), total) == total - begin == steps
    assert total == steps or min(int((total - 1) * strength), total - 1) < steps


@pytest.mark.parametrize("strength", [1e-3, 1e-9, 1e-38, 5e-324])
def test_no_strength_is_too_small_to_be_answered(strength: float) -> None:
    settings = SchedulerSettings.from_config(SchedulerType.DDIM, CONFIG)
    with pytest.raises(ScheduleError, match=r"at least 0\.0041"):
        begin_for(settings, 4, strength)


def test_too_small_a_strength_is_rejected_with_the_smallest_one() -> None:
    settings = SchedulerSettings.from_config(SchedulerType.DDIM, CONFIG)
    with pytest.raises(ScheduleError, match=r"at least 0\.0201") as caught:
        begin_for(settings, 20, 0.02)
    assert "the 999 that the scheduler DDIM has" in str(caught.value)
    assert begin_for(settings, 20, 0.0201)[0] <= 999


@pytest.mark.parametrize(
    ("type_", "config"),
    [
        (SchedulerType.DDIM, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        (SchedulerType.LCM, {"rescale_betas_zero_snr": True}),
        (SchedulerType.UNIPC_MULTISTEP, {"lower_order_final": False}),
        (SchedulerType.UNIPC_MULTISTEP, {"lower_order_final": False, "solver_order": 3}),
    ],
)
def test_settings_for_which_diffusers_computes_nan_are_rejected(
    type_: SchedulerType, config: Mapping[str, object]
) -> None:
    with pytest.raises(ScheduleError, match="divides by zero"):
        _plan(type_, 20, **config)


@pytest.mark.parametrize("type_", [SchedulerType.DPM_SOLVER_MULTISTEP, SchedulerType.UNIPC_MULTISTEP])
def test_karras_levels_on_one_timestep_are_rejected_where_diffusers_fails(type_: SchedulerType) -> None:
    config = {"rescale_betas_zero_snr": True, "use_karras_sigmas": True, "prediction_type": "v_prediction"}
    with pytest.raises((IndexError, AssertionError)):
        by_diffusers(Case(type_, 50, config=config))
    with pytest.raises(ScheduleError, match="fall on timestep 999"):
        _plan(type_, 50, **config)


def test_schedules_are_shared_and_cannot_be_written_to() -> None:
    plan = _plan(SchedulerType.DDIM, 4)
    assert _plan(SchedulerType.DDIM, 4) is plan
    with pytest.raises(ValueError, match="read-only"):
        plan.table[0, 0, 0] = 1
