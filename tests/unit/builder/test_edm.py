"""Schedulers of the formulation of EDM: settings that only they have."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_builder.models.schedule import ScheduleError, SchedulerSettings, SchedulerType
from tests.support.builder.samplers import Case, difference

_LIMIT = 3e-5
_EDM = (SchedulerType.EDM_EULER, SchedulerType.EDM_DPM_SOLVER_MULTISTEP)


@pytest.mark.parametrize("type_", _EDM)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "config",
    [
        {"sigma_schedule": "exponential", "sigma_min": 0.01, "sigma_max": 120.0, "sigma_data": 1.0},
        {"rho": 5.0, "final_sigmas_type": "sigma_min"},
    ],
)
@pytest.mark.parametrize(("steps", "begin"), [(2, None), (20, None), (12, 5)])
def test_noise_levels_are_those_of_diffusers(
    type_: SchedulerType, prediction: str, config: dict[str, Any], steps: int, begin: int | None
) -> None:
    case = Case(type_, steps, begin, repaint=begin is not None, config={**config, "prediction_type": prediction})
    error = difference(case)
    assert error.relative <= _LIMIT
    assert error.clean <= 1e-3 or begin is not None


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize(("order", "solver"), [(1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")])
@pytest.mark.parametrize(("steps", "begin"), [(4, None), (20, None), (30, 10)])
def test_the_solver_draws_what_diffusers_draws(
    algorithm: str, order: int, solver: str, steps: int, begin: int | None
) -> None:
    config = {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver}
    case = Case(SchedulerType.EDM_DPM_SOLVER_MULTISTEP, steps, begin, config=config)
    if algorithm == "sde-dpmsolver++" and order == 3:
        with pytest.raises(ScheduleError, match="solver_order: 3, which is not supported: use 1 or 2"):
            case.plan  # noqa: B018 - computing it is the point
        return
    assert difference(case).relative <= _LIMIT


@pytest.mark.parametrize(
    ("type_", "config", "says"),
    [
        (SchedulerType.EULER, {"_class_name": "EDMEulerScheduler"}, "use EDMEuler or EDMDPMSolverMultistep"),
        (SchedulerType.EDM_EULER, {"_class_name": "EulerDiscreteScheduler"}, "use another type"),
        (SchedulerType.EDM_EULER, {"sigma_min": 90.0}, "use less than sigma_max, 80.0"),
        (SchedulerType.EDM_EULER, {"sigma_max": -1}, "use a number above 0"),
        (SchedulerType.EDM_EULER, {"sigma_schedule": "linear"}, "use karras or exponential"),
    ],
)
def test_what_does_not_belong_together_is_rejected(type_: SchedulerType, config: dict[str, Any], says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        SchedulerSettings.from_config(type_, config)
