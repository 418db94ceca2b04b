"""Every input of every component has a shape in every profile, and the shapes are the ones that are served."""

import pytest

from diffusion_builder.engines.tensorrt.profiles import MAX_SLOTS, InputProfile, Profile, optimization_profiles
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import LOOP_DENOISERS, Component
from diffusion_contract.spec import Shapes
from diffusion_contract.spec.engines import BatchRange, PixelRange
from diffusion_contract.tensors import ENGINE_INTERFACES

FACTS = {
    "channels": 4, "pixels_per_latent": 8, "text_length": 77, "text_width": 768, "image_size": 224,
    "residuals_per_level_0": 960, "residuals_per_level_1": 1600, "image_length": 1, "image_width": 1024,
    "first_text_width": 768, "deep_channels": 320, "shallow_text": 1,
}  # fmt: skip


def shapes(batch: tuple[int, int, int] = (1, 4, 8)) -> Shapes:
    low, usual, high = batch
    return Shapes(
        batch=BatchRange(min=low, opt=usual, max=high),
        height=PixelRange(min=256, opt=512, max=768),
        width=PixelRange(min=256, opt=512, max=1024),
    )


def bucket_shapes() -> Shapes:
    buckets = [{"height": 1024, "width": 1024}, {"height": 832, "width": 1216}, {"height": 1216, "width": 832}]
    return Shapes.model_validate({"batch": {"min": 1, "opt": 2, "max": 4}, "buckets": buckets})


def test_each_bucket_has_a_profile_of_its_own_and_no_other_size() -> None:
    profiles = [
        by_name(item)["model_input"] for item in optimization_profiles(Component.DENOISER, FACTS, bucket_shapes())
    ]
    assert [(item.min, item.opt, item.max) for item in profiles] == [
        ((1, 4, *size), (2, 4, *size), (4, 4, *size)) for size in ((128, 128), (104, 152), (152, 104))
    ]  # fmt: skip
    assert len(optimization_profiles(Component.VAE_DECODER, FACTS, bucket_shapes())) == 3
    # Texts have no size.
    assert len(optimization_profiles(Component.TEXT_ENCODER, FACTS, bucket_shapes())) == 1


def test_buckets_are_written_as_they_are_read() -> None:
    body = bucket_shapes().model_dump(mode="json", by_alias=True)
    assert set(body) == {"batch", "buckets"}
    assert Shapes.model_validate(body) == bucket_shapes()
    assert set(Shapes().model_dump()) == {"batch", "height", "width"}
    assert (bucket_shapes().smallest, bucket_shapes().most_pixels) == ((832, 1216), 1024 * 1024)


def facts_of(component: Component) -> dict[str, int]:
    """Facts of a checkpoint that has this component."""
    refiner = {"refiner_text_width": 1280, "pooled_width": 1280}
    return FACTS | refiner if component is Component.REFINER else dict(FACTS)


def by_name(profile: Profile) -> dict[str, InputProfile]:
    return {item.name: item for item in profile}


@pytest.mark.parametrize("component", list(Component))
def test_every_input_has_a_shape_in_every_profile(component: Component) -> None:
    for profile in optimization_profiles(component, facts_of(component), shapes()):
        assert [item.name for item in profile] == [tensor.name for tensor in ENGINE_INTERFACES[component].inputs]
        for item, tensor in zip(profile, ENGINE_INTERFACES[component].inputs, strict=True):
            assert {len(item.min), len(item.opt), len(item.max)} == {1 + len(tensor.dims)}
            assert all(0 < low <= usual <= high for low, usual, high in zip(item.min, item.opt, item.max, strict=True))


def test_a_shallow_denoiser_is_tuned_as_the_full_one() -> None:
    single, full = optimization_profiles(Component.DENOISER_SHALLOW, FACTS, shapes())
    for name in ("deep_features", "negative_deep_features"):
        assert by_name(single)[name] == InputProfile(name, (1, 320, 32, 32), (1, 320, 64, 64), (8, 320, 96, 128))
        assert by_name(full)[name].opt == (8, 320, 64, 64)


def test_the_refiner_is_tuned_as_the_denoiser() -> None:
    single, full = optimization_profiles(Component.REFINER, facts_of(Component.REFINER), shapes())
    assert by_name(single)["time_ids"] == InputProfile("time_ids", (1, 2, 5), (1, 2, 5), (8, 2, 5))
    assert by_name(full)["text_embeddings"].opt == (8, 2, 77, 1280)


def test_the_denoiser_is_tuned_for_one_sample_and_for_a_full_batch() -> None:
    single, full = optimization_profiles(Component.DENOISER, FACTS, shapes())
    assert by_name(single)["model_input"] == InputProfile(
        "model_input", (1, 4, 32, 32), (1, 4, 64, 64), (8, 4, 96, 128)
    )
    assert by_name(full)["model_input"] == InputProfile("model_input", (1, 4, 32, 32), (8, 4, 64, 64), (8, 4, 96, 128))
    assert by_name(full)["text_embeddings"].opt == (8, 2, 77, 768)
    assert by_name(single)["timestep"] == InputProfile("timestep", (1, 1), (1, 1), (8, 1))


@pytest.mark.parametrize("component", [Component.DENOISER, Component.CONTROLNET])
def test_what_reads_a_pooled_embedding_has_shapes_for_it(component: Component) -> None:
    profile = optimization_profiles(component, {**FACTS, "pooled_width": 1280}, shapes())[-1]
    pooled, sizes = (by_name(profile)[name] for name in ("pooled_embeddings", "time_ids"))
    assert (pooled.min, pooled.max) == ((1, 2, 1280), (8, 2, 1280))
    assert (sizes.min, sizes.max) == ((1, 2, 6), (8, 2, 6))


def test_a_denoiser_of_one_batch_size_has_one_profile() -> None:
    assert len(optimization_profiles(Component.DENOISER, FACTS, shapes((2, 2, 2)))) == 1


@pytest.mark.parametrize("component", [item for item in Component if item not in LOOP_DENOISERS])
def test_other_components_are_tuned_for_the_usual_batch(component: Component) -> None:
    (profile,) = optimization_profiles(component, FACTS, shapes())
    assert {item.opt[0] for item in profile} == {4}


def test_a_denoiser_with_more_inputs_has_a_shape_for_each() -> None:
    facts = FACTS | {"controlnets": 2, "inpainting": 1, "ip_adapter": 1, "image_length": 257, "text_chunks": 4}
    profile = by_name(optimization_profiles(Component.DENOISER, facts, shapes())[1])
    assert profile["latent_mask"].max == (8, 1, 96, 128)
    assert profile["text_embeddings"].max == (8, 2, 308, 768)
    embeddings = profile["image_embeddings"]
    assert (embeddings.min, embeddings.opt) == ((1, 2, 257, 1024), (8, 2, 257, 1024))
    assert embeddings.max == (8, 2, 4 * 257, 1024)
    assert profile["ip_adapter_region"].max == (8, 1, 96, 128)
    assert profile["residuals_2"].min == (1, 2, 960 * 32 * 32 + 1600 * 16 * 16)
    assert profile["residuals_2"].max == (8, 2, 960 * 96 * 128 + 1600 * 48 * 64)


def test_a_text_encoder_for_long_prompts_takes_several_windows() -> None:
    (profile,) = optimization_profiles(Component.TEXT_ENCODER, FACTS | {"text_chunks": 4}, shapes())
    ids = by_name(profile)["input_ids"]
    assert (ids.min, ids.opt, ids.max) == ((1, 2, 77), (4, 2, 77), (8, 2, 308))


def test_an_image_encoder_takes_one_to_four_images() -> None:
    (profile,) = optimization_profiles(Component.IMAGE_ENCODER, FACTS, shapes())
    pixels = by_name(profile)["reference_pixels"]
    assert (pixels.min, pixels.opt, pixels.max) == ((1, 1, 3, 224, 224), (4, 1, 3, 224, 224), (8, 4, 3, 224, 224))


def test_a_safety_checker_knows_no_latents_and_needs_none() -> None:
    (profile,) = optimization_profiles(Component.SAFETY_CHECKER, {}, shapes())
    assert by_name(profile)["decoded_image"] == InputProfile(
        "decoded_image", (1, 3, 256, 256), (4, 3, 512, 512), (8, 3, 768, 1024)
    )


def test_a_scheduler_step_serves_any_scheduler() -> None:
    (profile,) = optimization_profiles(Component.SCHEDULER_STEP, FACTS, shapes())
    table, state = by_name(profile)["table"], by_name(profile)["state"]
    assert (state.min[1], state.opt[1], state.max[1]) == (1, 1, MAX_SLOTS)
    assert (table.min[2:], table.opt[2:], table.max[2:]) == ((2, 3), (2, 3), (MAX_SLOTS + 1, MAX_SLOTS + 2))


def test_a_size_that_nothing_says_is_asked_for() -> None:
    with pytest.raises(BadInputError, match=r"text_length of text_embeddings is: .* in the option shapeSources"):
        optimization_profiles(Component.DENOISER, {"channels": 4, "pixels_per_latent": 8, "text_width": 8}, shapes())


def test_pixels_that_are_no_whole_latents_are_refused() -> None:
    odd = Shapes(
        batch=BatchRange(min=1, opt=1, max=1),
        height=PixelRange(min=64, opt=72, max=128),
        width=PixelRange(min=64, opt=64, max=64),
    )
    with pytest.raises(BadInputError, match=r"height: \(64, 72, 128\) must be multiples of 16") as caught:
        optimization_profiles(Component.VAE_DECODER, FACTS | {"pixels_per_latent": 16}, odd)
    assert caught.value.reason is Reason.INVALID_SPEC
