"""A refiner's part of a schedule and of an ensemble."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.models.schedule import (
    ScheduleError,
    SchedulerSettings,
    SchedulerType,
    loop_for,
    refined_schedule,
    schedule,
)
from diffusion_builder.repository.graph import validate_ensemble
from diffusion_builder.repository.unroll import Tier, check_engines, ensemble, models
from diffusion_contract.enums import Component
from diffusion_contract.model_facts import ModelFacts

_FACTS = ModelFacts(
    channels=4, pixels_per_latent=8, text_length=16, text_width=72, slots=2, first_text_width=32, pooled_width=24,
    refiner_text_width=40, guidance_rescale=1, controlnets=1, ip_adapter=1, image_size=32, image_length=5,
    image_width=24,
)  # fmt: skip
_COMPONENTS = frozenset(Component) - {Component.CONTROLNET}
_DPM = SchedulerSettings.from_config(SchedulerType.DPM_SOLVER_MULTISTEP, {}, {}, is_forced=False)


@pytest.mark.parametrize(
    ("start", "steps", "base"), [(0.8, 20, 16), (0.8, 4, 3), (0.5, 4, 2), (0.9, 10, 9), (0.05, 20, 1)]
)
def test_the_base_has_the_calls_at_or_above_the_timestep(start: float, steps: int, base: int) -> None:
    settings = SchedulerSettings.from_config(SchedulerType.DDIM, {"timestep_spacing": "leading"}, {}, is_forced=True)
    assert loop_for(settings, steps, start) == (steps, base)
    assert loop_for(settings, steps) == (steps, steps)


def test_the_scheduler_of_the_refiner_knows_nothing_of_the_calls_before() -> None:
    whole, refined = schedule(_DPM, 10), refined_schedule(_DPM, 10, 0.5)
    base = loop_for(_DPM, 10, 0.5)[1]
    begun = schedule(_DPM, 10, base)
    assert np.array_equal(refined.table[:base], whole.table[:base])
    assert np.array_equal(refined.table[base:10], begun.table[: 10 - base])
    assert not np.array_equal(refined.table[base], whole.table[base])
    assert np.array_equal(refined.levels[:10, :2], whole.levels[:10, :2])
    assert not refined.table[10:].any()


@pytest.mark.parametrize(
    ("type_", "start", "steps", "says"),
    [
        (SchedulerType.HEUN, 0.8, 10, "Heun has steps of several calls"),
        (SchedulerType.PNDM, 0.8, 1, "PNDM has steps of several calls"),
        (SchedulerType.DDIM, 0.95, 2, "leaves none of 2 calls to the refiner"),
    ],
)
def test_a_loop_that_cannot_be_cut_is_rejected(type_: SchedulerType, start: float, steps: int, says: str) -> None:
    settings = SchedulerSettings.from_config(type_, {"timestep_spacing": "trailing"}, {}, is_forced=True)
    with pytest.raises(ScheduleError, match=says):
        loop_for(settings, steps, start)


@pytest.mark.parametrize("features", [(), ("controlnet",), ("ip_adapter",), ("controlnet", "ip_adapter")])
def test_the_last_calls_are_the_refiner_s(features: tuple[str, ...]) -> None:
    tier = Tier("generate", 5, 5, features, previews=(1, 4), refiner_calls=2)
    check_engines([tier], _FACTS, _COMPONENTS, ("edges",))
    unrolled = ensemble(tier, models(_FACTS, _COMPONENTS, ("edges",), [tier]))
    validate_ensemble(unrolled)
    used = [step.model.name for step in unrolled.steps]
    assert [name for name in used if name in ("5_denoiser", "5_refiner")] == ["5_denoiser"] * 3 + ["5_refiner"] * 2
    assert used.count("5_controlnet_edges") == 3 * ("controlnet" in features)
    assert {"aesthetic_score", "negative_aesthetic_score"} <= {port.name for port in unrolled.inputs}


@pytest.mark.parametrize(("task", "features"), [("img2img", ()), ("generate", ("embeddings",))])
def test_what_a_refiner_cannot_serve_is_rejected(task: str, features: tuple[str, ...]) -> None:
    tier = Tier(task, 4, 4, features, refiner_calls=1)
    with pytest.raises(BadInputError, match="a refiner serves the task generate alone") as caught:
        check_engines([tier], _FACTS, _COMPONENTS, ("edges",))
    assert caught.value.reason is Reason.COMPONENT_MISMATCH
