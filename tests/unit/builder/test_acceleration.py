"""Loops with variants of the denoiser: how they are wired, and what a repository of them is refused for."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from diffusion_builder.components import shallow_layers
from diffusion_builder.components.options import check
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository.graph import Ensemble, validate_ensemble
from diffusion_builder.repository.server_requirements import pool_bytes
from diffusion_builder.repository.unroll import Tier, check_engines, ensemble, models
from diffusion_contract.enums import Component
from diffusion_contract.exports import ExportOptions
from diffusion_contract.model_facts import ModelFacts
from diffusion_contract.python_models import CONTROLNET, EMBEDDINGS, IP_ADAPTER, TASKS
from diffusion_contract.spec import Acceleration, Shapes

_FACTS = ModelFacts(
    channels=4, pixels_per_latent=8, text_length=16, text_width=32, slots=2, image_size=32, image_length=5,
    image_width=24, ip_adapter=1, guidance_rescale=1, shallow_layers=1, deep_channels=320, shallow_text=1,
)  # fmt: skip
_COMPONENTS = frozenset(Component) - {Component.CONTROLNET}
_INTERVAL_3 = Acceleration.model_validate({"deepCache": {"interval": 3}})
_BOTH = Acceleration.model_validate({"deepCache": {"interval": 3}, "guidance": {"stop": 0.5}})
_FEATURES = [subset for size in range(3) for subset in combinations((IP_ADAPTER, EMBEDDINGS), size)]


def _unrolled(tier: Tier) -> Ensemble:
    check_engines([tier], _FACTS, _COMPONENTS, ())
    return ensemble(tier, models(_FACTS, _COMPONENTS, (), [tier]))


@pytest.mark.parametrize("features", _FEATURES)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("calls", [4, 5, 6, 7, 64])
def test_loops_of_any_length_are_sound(task: str, features: tuple[str, ...], calls: int) -> None:
    for acceleration in (_INTERVAL_3, _BOTH):
        validate_ensemble(_unrolled(Tier(task, calls, calls, features, previews=(1, 3), acceleration=acceleration)))


def test_guidance_stops_with_controlnets_and_their_residuals_go_on() -> None:
    facts = replace(_FACTS, shallow_layers=0, deep_channels=0, shallow_text=0, controlnets=1)
    tier = Tier("generate", 4, 4, (CONTROLNET,), acceleration=Acceleration.model_validate({"guidance": {"stop": 0.5}}))
    check_engines([tier], facts, _COMPONENTS, ("edges",))
    unrolled = ensemble(tier, models(facts, _COMPONENTS, ("edges",), [tier]))
    validate_ensemble(unrolled)
    guided, unguided = (
        next(step for step in unrolled.steps if step.model.name == name)
        for name in ("5_denoiser", "5_denoiser_unguided")
    )
    assert guided.inputs.keys() - unguided.inputs.keys() == {"guidance", "guidance_rescale"}
    assert unguided.inputs["residuals_1"] == "residuals_edges_at_2"


def test_deep_features_of_the_negative_prompt_go_as_far_as_guidance() -> None:
    steps = [
        step
        for step in _unrolled(Tier("generate", 8, 8, acceleration=_BOTH)).steps
        if step.model.name.startswith("5_denoiser")
    ]
    full, shallow, unguided, shallow_unguided = (
        f"5_denoiser{suffix}" for suffix in ("", "_shallow", "_unguided", "_shallow_unguided")
    )
    both, positive = {"deep_features", "negative_deep_features"}, {"deep_features"}
    assert [
        (step.model.name, {*step.inputs, *step.outputs} & both, step.inputs.get("deep_features")) for step in steps
    ] == [
        (full, both, None),
        (shallow, both, "deep_features_at_0"),
        (shallow, both, "deep_features_at_0"),
        # The calls that read these are not guided.
        (full, positive, None),
        (shallow_unguided, positive, "deep_features_at_3"),
        (shallow_unguided, positive, "deep_features_at_3"),
        (unguided, positive, None),
        (shallow_unguided, positive, "deep_features_at_6"),
    ]


def test_layers_without_cross_attention_read_neither_text_nor_reference_images() -> None:
    facts = replace(_FACTS, shallow_text=0, pooled_width=24, first_text_width=16)
    tier = Tier("generate", 4, 4, acceleration=_INTERVAL_3)
    unrolled = ensemble(tier, models(facts, _COMPONENTS, (), [tier]))
    validate_ensemble(unrolled)
    full, shallow = (
        next(step for step in unrolled.steps if step.model.name == name)
        for name in ("5_denoiser", "5_denoiser_shallow")
    )
    assert full.inputs.keys() - shallow.inputs.keys() == {
        "text_embeddings", "image_embeddings", "ip_adapter_scale", "ip_adapter_region",
    }  # fmt: skip
    assert {"pooled_embeddings", "time_ids", "guidance", "guidance_rescale"} <= shallow.inputs.keys()


def test_deep_features_go_from_each_full_call_to_the_shallow_ones_after_it() -> None:
    steps = [
        step
        for step in _unrolled(Tier("generate", 7, 7, acceleration=_INTERVAL_3)).steps
        if step.model.name.startswith("5_denoiser")
    ]
    table = [(step.model.name, step.outputs.get("deep_features"), step.inputs.get("deep_features")) for step in steps]
    full, shallow = "5_denoiser", "5_denoiser_shallow"
    assert table == [
        (full, "deep_features_at_0", None),
        (shallow, None, "deep_features_at_0"),
        (shallow, None, "deep_features_at_0"),
        (full, "deep_features_at_3", None),
        (shallow, None, "deep_features_at_3"),
        (shallow, None, "deep_features_at_3"),
        # Nothing comes after it.
        (full, None, None),
    ]
    for step in steps:
        negative = step.inputs.get("negative_deep_features") or step.outputs.get("negative_deep_features")
        positive = step.inputs.get("deep_features") or step.outputs.get("deep_features")
        assert negative == (positive and f"negative_{positive}")
    assert [step.outputs["model_output"] for step in steps] == [f"model_output_at_{call}" for call in range(7)]


@pytest.mark.parametrize(
    ("acceleration", "facts", "components", "says"),
    [
        (_INTERVAL_3, _FACTS, _COMPONENTS - {Component.DENOISER_SHALLOW}, "needs the engine denoiser_shallow"),
        (_INTERVAL_3, replace(_FACTS, shallow_layers=2), _COMPONENTS, "shallowLayers 2, .* needs 1"),
        (None, _FACTS, _COMPONENTS, "shallowLayers 1, .* needs 0"),
    ],
)
def test_engines_that_do_not_fit_are_named(
    acceleration: Acceleration | None, facts: ModelFacts, components: frozenset[Component], says: str
) -> None:
    tier = Tier("generate", 4, 4, acceleration=acceleration)
    with pytest.raises(BadInputError, match=says) as caught:
        check_engines([tier], facts, components, ())
    assert caught.value.reason is Reason.COMPONENT_MISMATCH


@pytest.mark.parametrize(
    ("component", "options", "says"),
    [
        (Component.DENOISER_SHALLOW, {}, "denoiser_shallow needs the option shallowLayers"),
        (Component.DENOISER, {"shallowLayers": 1, "controlNets": 1}, "leave out one of both"),
        (Component.DENOISER_SHALLOW_UNGUIDED, {}, "denoiser_shallow_unguided needs the option shallowLayers"),
        (Component.DENOISER_UNGUIDED, {"guidanceRescale": True}, "denoiser_unguided has no option guidanceRescale"),
        (Component.VAE_DECODER, {"shallowLayers": 1}, "vae_decoder has no option shallowLayers"),
    ],
)
def test_options_that_make_no_variant_are_refused(component: Component, options: dict[str, int], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        check(component, ExportOptions.model_validate(options))


@pytest.mark.parametrize(
    ("config", "layers", "says"),
    [
        ({"layers_per_block": 1}, 3, "branches 0 to 1 can be computed in every call, not 2"),
        ({"layers_per_block": [2, 1], "time_cond_proj_dim": 16}, 1, "reads guidance as an embedding"),
    ],
)
def test_a_unet_that_cannot_be_accelerated_is_refused(config: dict[str, object], layers: int, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        shallow_layers.check(config, layers)


def test_the_pool_holds_the_deep_features_of_every_request() -> None:
    shapes = Shapes()
    plain = replace(_FACTS, deep_channels=0, shallow_layers=0)
    two_batches, both_prompts = 2 * 8, 2
    features = two_batches * 2 * both_prompts * 320 * 96 * 96 * 4
    assert pool_bytes(_FACTS, shapes) >= max(features, pool_bytes(plain, shapes) + 1)
