"""What Triton would find late, or never, is found before a repository is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository.graph import Ensemble, EnsembleStep, Port, validate_ensemble
from diffusion_builder.repository.unroll import Models, Tier, ensemble, models
from diffusion_contract.enums import Component
from diffusion_contract.model_facts import ModelFacts
from diffusion_contract.python_models import CONDITIONER_NAME
from diffusion_contract.tensors import TEXT_TO_IMAGE, DType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FACTS = ModelFacts(channels=4, pixels_per_latent=8, text_length=16, text_width=32, slots=1)


def _parts(*tiers: Tier, facts: ModelFacts = FACTS, components: Iterable[Component] = TEXT_TO_IMAGE) -> Models:
    return models(facts, components, ("canny", "depth")[: facts.controlnets], tiers)


def _good(steps: int = 3) -> Ensemble:
    tier = Tier("generate", steps, steps)
    return ensemble(tier, _parts(tier))


def _change(index: int, **maps: dict[str, str]) -> Ensemble:
    good = _good()
    steps = list(good.steps)
    old = steps[index]
    steps[index] = EnsembleStep(old.model, maps.get("inputs", dict(old.inputs)), maps.get("outputs", dict(old.outputs)))
    return replace(good, steps=tuple(steps))


def _with_output(name: str, port: Port) -> Ensemble:
    return replace(_good(), outputs=(*_good().outputs, replace(port, name=name)))


@pytest.mark.parametrize("steps", [1, 2, 20, 64])
def test_unrolled_tiers_of_any_length_are_sound(steps: int) -> None:
    unrolled = _good(steps)
    validate_ensemble(unrolled)
    used = [step.model.name for step in unrolled.steps]
    assert used.count("5_denoiser") == used.count("6_scheduler_step") == steps
    assert unrolled.name == f"generate_{steps}_pipeline"


def test_a_tier_reads_its_own_schedule() -> None:
    conditioner = next(step for step in _good(20).steps if step.model.name == CONDITIONER_NAME)
    assert {name for name in conditioner.outputs if name.startswith("table")} == {"table_generate_20"}


def _denoise(**changes: str) -> dict[str, str]:
    return {**_good().steps[3].inputs, **changes}


_BROKEN: dict[str, tuple[Callable[[], Ensemble], str]] = {
    "tensor of no step": (
        lambda: _change(3, inputs=_denoise(timestep="nowhere")),
        r"tensor nowhere, read by step 3 \(5_denoiser\), is produced by no step",
    ),
    "never consumed": (
        lambda: _change(4, outputs={**_good().steps[4].outputs, "latent": "spare"}),
        r"tensor spare of step 4 \(6_scheduler_step\) is never consumed",
    ),
    "produced twice": (
        lambda: _change(5, outputs={"model_output": "model_output_at_0"}),
        "tensor model_output_at_0 is produced 2 times",
    ),
    "required input": (
        lambda: _change(3, inputs={k: v for k, v in _denoise().items() if k != "guidance"}),
        r"step 3 \(5_denoiser\) maps nothing to its input guidance",
    ),
    "unknown input": (lambda: _change(3, inputs=_denoise(strength="guidance")), r"step 3 .* has no input strength"),
    "unknown output": (
        lambda: _change(3, outputs={"model_output": "model_output_at_0", "more": "y"}), "has no output more",
    ),
    "no output": (lambda: _change(3, outputs={}), "has no output that is used"),
    "other shape": (
        lambda: _change(3, inputs=_denoise(timestep="model_input_at_0")),
        r"tensor model_input_at_0 is \[4, -1, -1\] at",
    ),
    "other dtype": (
        lambda: _change(3, inputs=_denoise(timestep="step_index_at_0")), "step_index_at_0 is INT32 at .* and FP32 at",
    ),
    "output that a step also reads": (
        lambda: _with_output("state_at_1", Port("", DType.FP32, (1, 4, -1, -1))),
        "output state_at_1 is also read by a step",
    ),
    "only optional inputs": (
        lambda: _change(0, inputs={"negative_prompt": "negative_prompt"}),
        r"step 0 \(1_tokenizer\) has only optional inputs",
    ),
    "optional into required": (
        lambda: _change(3, inputs=_denoise(guidance="guidance_scale")), "guidance_scale may be left out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _BROKEN)
def test_a_broken_graph_is_rejected_with_the_step_and_the_tensor(name: str) -> None:
    make, says = _BROKEN[name]
    with pytest.raises(BadInputError, match=says) as caught:
        validate_ensemble(make())
    assert caught.value.reason is Reason.INVALID_ENSEMBLE
    assert "generate_3_pipeline" in caught.value.message


def test_an_input_that_a_preview_alone_would_leave_unread_is_rejected() -> None:
    tier = Tier("generate", 3, 3, previews=(1,))
    good = ensemble(tier, _parts(tier))
    validate_ensemble(good)
    assert "preview_1" in good.steps[-1].outputs.values()
    steps = [
        step
        if "image" in step.outputs.values()
        else replace(step, inputs={name: tensor for name, tensor in step.inputs.items() if name != "sharpen"})
        for step in good.steps
    ]
    with pytest.raises(BadInputError, match="input sharpen is read by no step that output preview_1 needs"):
        validate_ensemble(replace(good, steps=tuple(steps)))


def test_components_that_disagree_are_named() -> None:
    text, unet = {"text_length": 16, "text_width": 32}, {"channels": 4, "text_width": 64}
    with pytest.raises(ValueError, match="denoiser has text_width 64, another component has 32"):
        ModelFacts.merge({Component.TEXT_ENCODER: text, Component.DENOISER: unet})
