"""Every combination of task, features and denoiser is a sound graph, or is rejected with what is missing."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository.graph import Ensemble, EnsembleStep, validate_ensemble
from diffusion_builder.repository.unroll import Tier, check_engines, ensemble, json_ensemble, models
from diffusion_contract.enums import Component
from diffusion_contract.model_facts import ModelFacts
from diffusion_contract.python_models import FEATURES, TASKS
from diffusion_contract.tensors import TEXT_TO_IMAGE

_PLAIN = ModelFacts(channels=4, pixels_per_latent=8, text_length=16, text_width=32, slots=2)
_FULL = replace(_PLAIN, image_size=32, image_length=5, image_width=24, ip_adapter=1, controlnets=2, guidance_rescale=1)
_COMPONENTS = frozenset(Component) - {Component.CONTROLNET}
_NETS = ("edges", "depth")
_SUBSETS = [subset for size in range(4) for subset in combinations(FEATURES, size)]


@pytest.mark.parametrize("features", _SUBSETS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("draws", [True, False])
def test_any_combination_is_sound(task: str, features: tuple[str, ...], draws: bool) -> None:  # noqa: FBT001
    tier = Tier(task, 4, 4, features, is_stochastic=draws, previews=(1, 3))
    check_engines([tier], _FULL, _COMPONENTS, _NETS)
    unrolled = ensemble(tier, models(_FULL, _COMPONENTS, _NETS, [tier]))
    validate_ensemble(unrolled)
    used = [step.model.name for step in unrolled.steps]
    assert used.count("5_controlnet_edges") == used.count("5_controlnet_depth") == 4 * ("controlnet" in features)
    assert used.count("5_zero_residuals") == ("controlnet" not in features)
    assert used.count("3_image_encoder") == ("ip_adapter" in features)
    assert used.count("2_text_encoder") == ("embeddings" not in features)
    # Two previews and the image.
    assert (used.count("7_preview_decoder"), used.count("7_vae_decoder")) == (2, 1)
    assert used.count("7_safety_checker") == 3
    # The final image has four outputs, each with a step of its own.
    assert used.count("8_postprocessor") == 4 + 2
    assert {port.name for port in unrolled.outputs} == {
        *("image", "encoded_image", "encoded_image_base64", "flagged", "preview_1", "preview_3")
    }
    text = json_ensemble(tier, unrolled)
    validate_ensemble(text)
    assert [text.inputs, [port.name for port in text.outputs]] == [unrolled.inputs, ["encoded_image_base64", "flagged"]]


def test_without_a_safety_checker_nothing_is_flagged() -> None:
    tier = Tier("generate", 2, 2)
    unchecked = _COMPONENTS - {Component.SAFETY_CHECKER}
    unrolled = ensemble(tier, models(_PLAIN, unchecked, (), [tier]))
    names = [port.name for port in unrolled.outputs]
    assert names == ["image", "encoded_image", "encoded_image_base64"]
    assert [port.name for port in json_ensemble(tier, unrolled).outputs] == ["encoded_image_base64"]


def _before(unrolled: Ensemble, step: EnsembleStep) -> set[str]:
    """Models that have ended when a step begins."""
    makers = {tensor: other for other in unrolled.steps for tensor in other.outputs.values()}
    model_names: set[str] = set()
    for tensor in step.inputs.values():
        if tensor in makers:
            model_names |= {makers[tensor].model.name} | _before(unrolled, makers[tensor])
    return model_names


@pytest.mark.parametrize("features", _SUBSETS)
@pytest.mark.parametrize("task", TASKS)
def test_what_reads_a_request_before_the_loop_runs_one_after_the_other(task: str, features: tuple[str, ...]) -> None:
    """Triton frees a rejected request's memory at once, whoever still reads it, and forgets it if an engine works."""
    tier = Tier(task, 1, 1, features)
    unrolled = ensemble(tier, models(_FULL, _COMPONENTS, _NETS, [tier]))
    input_names = {port.name for port in unrolled.inputs}
    reading = {step.model.name: step for step in unrolled.steps if input_names & set(step.inputs.values())}
    earlier = [len(reading.keys() & _before(unrolled, step)) for step in reading.values()]
    assert sorted(earlier) == list(range(len(reading)))
    if "embeddings" not in features:
        encoder = next(step for step in unrolled.steps if step.model.name == "2_text_encoder")
        assert reading.keys() - {"8_postprocessor"} <= _before(unrolled, encoder)


def test_a_denoiser_made_for_inpainting_reads_the_mask_itself() -> None:
    facts = replace(_PLAIN, inpainting=1)
    tier = Tier("inpaint", 2, 2)
    unrolled = ensemble(tier, models(facts, _COMPONENTS, (), [tier]))
    validate_ensemble(unrolled)
    assert [step.model.name for step in unrolled.steps].count("3_vae_encoder") == 2
    denoiser = next(step for step in unrolled.steps if step.model.name == "5_denoiser")
    assert {"latent_mask", "masked_latent"} <= denoiser.inputs.keys()


def test_64_steps_of_everything_are_sound() -> None:
    tier = Tier("inpaint", 64, 64, FEATURES[:2], is_stochastic=True)
    unrolled = ensemble(tier, models(_FULL, _COMPONENTS, _NETS, [tier]))
    validate_ensemble(unrolled)
    assert len(unrolled.steps) == 64 * 4 + 12


@pytest.mark.parametrize(
    ("tier", "facts", "components", "nets", "says"),
    [
        (Tier("generate", 4, 4), replace(_PLAIN, inpainting=1), TEXT_TO_IMAGE, (), "the only task it can do"),
        (Tier("img2img", 4, 4), _PLAIN, TEXT_TO_IMAGE, (), "img2img_4_pipeline: img2img needs the engine vae_encoder"),
        (Tier("generate", 4, 4, ("controlnet",)), _PLAIN, TEXT_TO_IMAGE, (), "at least one entry in controlNets"),
        (Tier("generate", 4, 4, ("ip_adapter",)), _PLAIN, TEXT_TO_IMAGE, (), "exported with the option ipAdapter"),
        (
            Tier("generate", 4, 4, ("ip_adapter",)), replace(_PLAIN, ip_adapter=1), TEXT_TO_IMAGE, (),
            "needs the engine image_encoder",
        ),
        (
            Tier("generate", 4, 4), replace(_PLAIN, controlnets=1), TEXT_TO_IMAGE, ("edges",),
            "needs the engine zero_residuals",
        ),
        (Tier("generate", 4, 4), _FULL, _COMPONENTS, ("edges",), "exported for 2 ControlNets, but controlNets lists 1"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    tier: Tier, facts: ModelFacts, components: tuple[Component, ...], nets: tuple[str, ...], says: str
) -> None:
    with pytest.raises(BadInputError, match=says) as caught:
        check_engines([tier], facts, set(components), nets)
    assert caught.value.reason is Reason.COMPONENT_MISMATCH
