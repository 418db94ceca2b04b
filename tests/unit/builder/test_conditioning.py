"""The conditioner prepares what diffusers' pipelines prepare, and rejects what it cannot."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from diffusion_builder.models.conditioner_config import ConditionerConfig
from diffusion_builder.models.conditioning import compute_outputs
from diffusion_builder.models.errors import InvalidRequest
from diffusion_builder.models.schedule import SchedulerSettings, SchedulerType, schedule
from tests.support.builder.samplers import CLASSES, CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_SIDE = {"min": 64, "opt": 64, "max": 128}
_FACTOR = 0.18215
_SHAPE = (4, 8, 12)
_RANDOM = np.random.default_rng(3)
_CORE = ("levels", "state", "model_input", "timestep", "step_index", "image_latent_and_noise", "step_mask")


def _config(*types: SchedulerType, **changes: object) -> ConditionerConfig:
    listed = types or tuple(SchedulerType)
    settings = [SchedulerSettings.from_config(type_, CONFIG) for type_ in listed]
    schedulers = [{"name": one.type.lower(), **one.to_json()} for one in settings]
    body = {
        "channels": 4, "pixelsPerLatent": 8, "height": _SIDE, "width": _SIDE, "schedulers": schedulers,
        "slots": max(schedule(one, 4).slots for one in settings), "inpainting": False,
        "textLength": 77, "textWidth": 6, "textChunks": 2, "imageLength": 4, "imageWidth": 6, "controlNets": ["canny"],
        **changes,
    }  # fmt: skip
    return ConditionerConfig.from_json(json.dumps(body))


def _texts(*values: str) -> NDArray[Any]:
    return np.array([[value.encode()] for value in values], object)


def _inputs(batch: int = 1, **values: object) -> dict[str, NDArray[Any]]:
    """Inputs of a request: lists become columns of single precision, texts BYTES."""
    inputs: dict[str, NDArray[Any]] = {"input_ids": np.ones((batch, 2, 77), np.int64)}
    for name, value in values.items():
        if isinstance(value, list):
            strings = isinstance(value[0], str)
            whole = np.int64 if name == "seed" else np.int32 if name in {"height", "width"} else np.float32
            inputs[name] = _texts(*value) if strings else np.array(value, whole).reshape(-1, 1)
        else:
            assert isinstance(value, np.ndarray)
            inputs[name] = value
    return inputs


def _ask(config: ConditionerConfig, key: str, *extra_outputs: str, **values: object) -> Mapping[str, NDArray[Any]]:
    batch = max((len(value) for value in values.values() if isinstance(value, list | np.ndarray)), default=1)
    return compute_outputs(config, _inputs(batch, **values).get, frozenset({f"table_{key}", *_CORE, *extra_outputs}))


def _moments(batch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mean = _RANDOM.standard_normal((batch, *_SHAPE)).astype(np.float32)
    return mean, _RANDOM.uniform(0.1, 0.5, (batch, *_SHAPE)).astype(np.float32)


def _pipeline(scheduler: Any, *encoded: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Any:  # noqa: ANN401 - what diffusers' methods call `self`
    """Enough of a pipeline for its helper methods; each image in turn is encoded to the next moments."""
    samples = iter(
        DiagonalGaussianDistribution(
            torch.from_numpy(np.concatenate([mean[None], 2 * np.log(deviation)[None]], axis=1))
        )
        for means, deviations in encoded
        for mean, deviation in zip(means / _FACTOR, deviations / _FACTOR, strict=True)
    )
    vae = SimpleNamespace(
        encode=lambda _image: SimpleNamespace(latent_dist=next(samples)),
        config=SimpleNamespace(scaling_factor=_FACTOR),
    )
    pipeline = SimpleNamespace(vae=vae, scheduler=scheduler, vae_scale_factor=8)
    pipeline._encode_vae_image = StableDiffusionInpaintPipeline._encode_vae_image.__get__(pipeline)  # noqa: SLF001
    return pipeline


def _scheduler(type_: SchedulerType, steps: int, strength: float) -> tuple[Any, torch.Tensor]:
    """Diffusers' scheduler when this strength leaves so many steps, and its timesteps."""
    scheduler = CLASSES[type_].from_config(CONFIG)
    total = next(total for total in range(steps, 1000) if min(int(total * strength), total) == steps)
    scheduler.set_timesteps(total)
    timesteps, remaining_steps = StableDiffusionImg2ImgPipeline.get_timesteps(
        SimpleNamespace(scheduler=scheduler), total, strength, "cpu"
    )
    assert remaining_steps == steps
    return scheduler, timesteps


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _next(generators: Sequence[torch.Generator]) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = torch.cat([torch.randn((1, *_SHAPE), generator=one) for one in generators]).numpy()
    return noise


def _close(actual: NDArray[np.float32], expected: torch.Tensor | NDArray[np.float32], limit: float = 2e-6) -> None:
    other = np.asarray(expected)
    assert actual.shape == other.shape
    assert np.abs(actual - other).max() <= limit * max(1.0, float(np.abs(other).max()))


@pytest.mark.parametrize("type_", SchedulerType)
def test_text_alone_starts_from_the_noise_of_each_sample_s_seed(type_: SchedulerType) -> None:
    scheduler = CLASSES[type_].from_config(CONFIG)
    scheduler.set_timesteps(4)
    calls = [f"noise_{call}" for call in range(5)]
    out = _ask(_config(type_), "generate_4", *calls, seed=[3, -4], height=[64, 64], width=[96, 96])
    generators = _generators([3, -4])
    latent = torch.from_numpy(_next(generators)) * scheduler.init_noise_sigma
    _close(out["state"][:, 0], latent)
    assert not out["state"][:, 1:].any()
    _close(out["model_input"], scheduler.scale_model_input(latent, scheduler.timesteps[0]))
    assert np.abs(out["timestep"] - float(scheduler.timesteps[0])).max() <= 1e-3
    assert out["step_index"].tolist() == [[0], [0]]
    draws = schedule(_config(type_).schedulers[type_.lower()], 4).draws
    for call, name in enumerate(calls):
        has_noise = call < len(draws) and draws[call]
        _close(out[name], _next(generators) if has_noise else np.zeros((2, *_SHAPE), np.float32))


@pytest.mark.parametrize("type_", SchedulerType)
@pytest.mark.parametrize("strength", [1.0, 0.7, 0.3])
def test_an_image_is_the_start_that_it_is_in_diffusers(type_: SchedulerType, strength: float) -> None:
    moments = _moments(2)
    out = _ask(
        _config(type_), "img2img_4", "noise_0",
        latent_mean=moments[0], latent_std=moments[1], seed=[3, 4], strength=[strength] * 2,
    )  # fmt: skip
    scheduler, timesteps = _scheduler(type_, 4, strength)
    generators = _generators([3, 4])
    latent = StableDiffusionImg2ImgPipeline.prepare_latents(
        _pipeline(scheduler, moments), torch.zeros(2, 3, 64, 96), timesteps[:1].repeat(2), 2, 1, torch.float32, "cpu",
        generators,
    )  # fmt: skip
    _close(out["state"][:, 0], latent)
    assert np.abs(out["levels"][0, : len(timesteps), 0] - timesteps.numpy()).max() <= 1e-3
    assert (out["step_mask"] == 1).all()
    if type_ in {SchedulerType.EULER_ANCESTRAL, SchedulerType.LCM, SchedulerType.DDPM}:
        _close(out["noise_0"], _next(generators))


@pytest.mark.parametrize("made_for_it", [False, True])
@pytest.mark.parametrize("type_", [SchedulerType.EULER_ANCESTRAL, SchedulerType.DDIM, SchedulerType.HEUN])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_repainting_starts_as_in_diffusers(type_: SchedulerType, strength: float, *, made_for_it: bool) -> None:
    whole, masked = _moments(2), _moments(2)
    mask = _RANDOM.uniform(0, 1, (2, 1, *_SHAPE[1:])).astype(np.float32)
    out = _ask(
        _config(type_, inpainting=made_for_it), "inpaint_4", "noise_0", "masked_latent",
        latent_mean=whole[0], latent_std=whole[1], masked_mean=masked[0], masked_std=masked[1],
        latent_mask=mask, seed=[3, 4], strength=[strength] * 2,
    )  # fmt: skip
    scheduler, timesteps = _scheduler(type_, 4, strength)
    drawn_first = not made_for_it or strength < 1
    pipeline = _pipeline(scheduler, *[whole] * drawn_first, masked)
    generators = _generators([3, 4])
    latent, noise, *clean = StableDiffusionInpaintPipeline.prepare_latents(
        pipeline, 2, 4, 64, 96, torch.float32, "cpu", generators, None, image=torch.zeros(2, 3, 64, 96),
        timestep=timesteps[:1].repeat(2), is_strength_max=strength == 1.0, return_noise=True,
        return_image_latents=not made_for_it,
    )  # fmt: skip
    _mask, masked_latent = StableDiffusionInpaintPipeline.prepare_mask_latents(
        pipeline, torch.zeros(2, 1, 64, 96), torch.zeros(2, 3, 64, 96), 2, 64, 96, torch.float32, "cpu", generators,
        False,  # noqa: FBT003 - whether it is doubled for guidance
    )  # fmt: skip
    _close(out["state"][:, 0], latent)
    _close(out["masked_latent"], masked_latent)
    _close(out["image_latent_and_noise"][:, 1], noise)
    if made_for_it:
        assert (out["step_mask"] == 1).all()
    else:
        _close(out["image_latent_and_noise"][:, 0], clean[0])
        assert np.array_equal(out["step_mask"], mask)
    if type_ is SchedulerType.EULER_ANCESTRAL:
        _close(out["noise_0"], _next(generators))


def test_strength_is_the_decimal_number_that_was_sent() -> None:
    # In single precision 0.7 * 10 is below 7, which would be another schedule.
    moments = _moments(1)
    out = _ask(_config(), "img2img_7", latent_mean=moments[0], latent_std=moments[1], strength=[0.7])
    _, timesteps = _scheduler(SchedulerType.DDIM, 7, 0.7)
    assert out["levels"][0, :7, 0].tolist() == timesteps.tolist()
    assert timesteps[0] == 601


def test_strength_is_08_for_images_and_1_for_repainting_when_it_is_left_out() -> None:
    moments = _moments(1)
    images = {"latent_mean": moments[0], "latent_std": moments[1]}
    default, explicit = (_ask(_config(), "img2img_4", **images, **strength) for strength in ({}, {"strength": [0.8]}))
    assert np.array_equal(default["state"], explicit["state"])
    default, explicit = (_ask(_config(), "inpaint_4", **images, **strength) for strength in ({}, {"strength": [1.0]}))
    assert np.array_equal(default["state"], explicit["state"])


def test_samples_of_one_request_may_have_schedulers_and_strengths_of_their_own() -> None:
    moments = _moments(2)
    together = _ask(
        _config(), "img2img_4", "noise_0", latent_mean=moments[0], latent_std=moments[1], seed=[3, 4],
        strength=[0.5, 0.9], scheduler=["UniPCMultistep", "EulerAncestral"],
    )  # fmt: skip
    for index, (type_, strength) in enumerate([("UniPCMultistep", 0.5), ("EulerAncestral", 0.9)]):
        alone = _ask(
            _config(), "img2img_4", "noise_0", latent_mean=moments[0][index : index + 1],
            latent_std=moments[1][index : index + 1], seed=[3 + index], strength=[strength], scheduler=[type_],
        )  # fmt: skip
        for name, array in alone.items():
            assert np.array_equal(array[0], together[name][index]), name


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"output_format": ["GIF"]}, "output_format 'GIF' is not supported"),
        ({"contrast": [5.0]}, "contrast 5 is not supported"),
        ({"width": [128], "upscale_height": [4096.0]}, "upscaling gives 8192 x 4096 pixels"),
    ],
)
def test_an_image_that_could_not_be_finished_is_not_begun(inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        _ask(_config(), "generate_4", **inputs)


def test_tables_have_the_slots_of_the_largest_scheduler() -> None:
    config = _config()
    out = _ask(config, "generate_4")
    assert config.slots == 4
    assert out["table_generate_4"].shape == (1, 64, 5, 6)
    assert out["state"].shape == (1, 4, 4, 8, 8)
    assert {array.dtype for name, array in out.items() if name != "step_index"} == {np.dtype(np.float32)}


@pytest.mark.parametrize("type_", [SchedulerType.HEUN, SchedulerType.PNDM])
def test_a_scheduler_with_other_calls_has_its_own_ensemble(type_: SchedulerType) -> None:
    config = _config(SchedulerType.DDIM, SchedulerType.EULER, type_)
    _ask(config, f"generate_4_{type_.lower()}")
    _ask(config, f"generate_4_{type_.lower()}", scheduler=[str(type_)])
    with pytest.raises(InvalidRequest, match=f"send the request to generate_4_{type_.lower()}_pipeline"):
        _ask(config, "generate_4", scheduler=[str(type_)])
    with pytest.raises(InvalidRequest, match="send the request to generate_4_pipeline"):
        _ask(config, f"generate_4_{type_.lower()}", scheduler=["Euler"])
    with pytest.raises(InvalidRequest, match=f"generate_controlnet_ip_adapter_embeddings_4_{type_.lower()}_pipeline"):
        _ask(
            config, "generate_4", "control_scales_canny", "ip_adapter_scale", "request_text_embeddings",
            scheduler=[str(type_)],
        )  # fmt: skip


def test_a_scheduler_is_chosen_by_name_so_that_one_type_may_be_listed_twice() -> None:
    plain = SchedulerSettings.from_config(SchedulerType.EULER, CONFIG)
    karras = SchedulerSettings.from_config(SchedulerType.EULER, CONFIG, {"use_karras_sigmas": True})
    listed = [{"name": name, **one.to_json()} for name, one in (("euler", plain), ("karras", karras))]
    config = _config(SchedulerType.EULER, schedulers=listed)
    out = _ask(config, "generate_4", scheduler=["Euler", "karras"])["levels"]
    assert np.array_equal(out[0], schedule(plain, 4).levels)
    assert np.array_equal(out[1], schedule(karras, 4).levels)


def test_the_default_scheduler_has_the_plain_name_whatever_it_is() -> None:
    config = _config(SchedulerType.PNDM, SchedulerType.DDIM)
    _ask(config, "generate_4")
    with pytest.raises(InvalidRequest, match="generate_4_ddim_pipeline"):
        _ask(config, "generate_4", scheduler=["DDIM"])


def test_guidance_of_at_most_one_means_none_as_in_diffusers() -> None:
    assert _ask(_config(), "generate_4", "guidance", guidance_scale=[0.0, 1.0, 3.5])["guidance"].tolist() == [
        [1.0],
        [1.0],
        [3.5],
    ]
    assert _ask(_config(), "generate_4", "guidance")["guidance"].tolist() == [[7.5]]


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.25, 0.75), (0.3, 0.31), (0.0, 0.5)])
def test_a_controlnet_is_on_when_it_is_in_diffusers(start: float, end: float) -> None:
    out = _ask(
        _config(), "generate_20", "control_scales_canny",
        control_scale_canny=[0.6], control_start_canny=[start], control_end_canny=[end],
    )["control_scales_canny"]  # fmt: skip
    # The line of StableDiffusionControlNetPipeline.
    keep = [1.0 - float(i / 20 < start or (i + 1) / 20 > end) for i in range(20)]
    assert np.allclose(out[0, :20], np.array(keep) * 0.6)
    assert not out[0, 20:].any()


def test_reference_images_have_no_weight_where_there_are_none() -> None:
    none = _ask(_config(), "generate_4", "ip_adapter_scale", "zero_image_embeddings", "full_ip_adapter_region")
    assert none["ip_adapter_scale"].tolist() == [[0.0]]
    assert none["zero_image_embeddings"].shape == (1, 2, 4, 6)
    assert none["full_ip_adapter_region"].tolist() == np.ones((1, 1, 8, 8)).tolist()
    some = _ask(_config(), "generate_4", "ip_adapter_scale", ip_adapter_weight=[0.5])
    assert some["ip_adapter_scale"].tolist() == [[0.5]]


def test_embeddings_take_the_place_of_text() -> None:
    positive, negative = _RANDOM.standard_normal((2, 2, 154, 6)).astype(np.float32)
    output_names = frozenset({"table_generate_4", "request_text_embeddings", "guidance"})
    out = compute_outputs(
        _config(), {"prompt_embeddings": positive, "negative_prompt_embeddings": negative}.get, output_names
    )
    assert np.array_equal(out["request_text_embeddings"], np.stack([negative, positive], axis=1))
    alone = {"prompt_embeddings": positive, "guidance_scale": np.ones((2, 1), np.float32)}
    assert not compute_outputs(_config(), alone.get, output_names)["request_text_embeddings"][:, 0].any()


def _image(**values: object) -> dict[str, object]:
    moments = _moments(1)
    return {"latent_mean": moments[0], "latent_std": moments[1], **values}


def _embeddings(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("key", "values", "says"),
    [
        ("generate_4", {"height": [63]}, "height 63 .* from 64 to 128"),
        ("generate_4", {"width": [136]}, "width 136"),
        ("generate_4", {"width": [0]}, "width 0"),
        ("generate_4", {"height": [64, 72]}, "one request per size"),
        ("generate_4", {"guidance_scale": [float("nan")]}, "guidance_scale nan is not a finite number: send 7.5"),
        ("generate_4", {"guidance_scale": [float("-inf")]}, "guidance_scale -inf"),
        ("generate_4", {"guidance_rescale": [1.5]}, "guidance_rescale 1.5 .* send 0 to 1"),
        ("generate_4", {"scheduler": ["Magic"]}, "scheduler 'magic' is not supported: send ddim or ddpm"),
        ("generate_4", {"scheduler": ["ddim\0"]}, "is not supported"),
        ("generate_4", {"eta": [0.5], "scheduler": ["Euler"]}, "Euler has no eta"),
        ("generate_4", {"eta": [-0.1]}, "eta -0.1 is not supported"),
        ("generate_51", {"scheduler": ["LCM"]}, "51 steps: the scheduler LCM has 1 to 50"),
        ("img2img_4", {}, "input_image is missing"),
        ("img2img_4", _image(strength=[0.0]), "strength 0 is not supported: send above 0 to 1"),
        ("img2img_4", _image(strength=[1.01]), "strength 1.01"),
        ("img2img_4", _image(strength=[float("nan")]), "strength nan"),
        ("img2img_4", _image(strength=[0.001]), "at least 0.0041"),
        ("img2img_4", _image(latent_mean=np.full((1, *_SHAPE), np.nan)), "latent_mean has numbers that are not"),
        ("img2img_1_pndm", _image(strength=[0.5]), "calls the denoiser 2 times"),
        ("inpaint_4", {}, "input_image is missing"),
        ("generate_4", {"control_start_canny": [0.5], "control_end_canny": [0.5]}, "is not before"),
        ("generate_4", {"control_end_canny": [1.5]}, "control_end_canny 1.5"),
        ("generate_4", {"ip_adapter_weight": [float("inf")]}, "ip_adapter_weight inf"),
        ("generate_4", {"prompt_embeddings": _embeddings(1, 76, 6)}, "76 tokens of 6 features: send a multiple of 77"),
        ("generate_4", {"prompt_embeddings": _embeddings(1, 77, 5)}, "of 5 features"),
        ("generate_4", {"prompt_embeddings": _embeddings(1, 231, 6)}, "up to 154"),
        ("generate_4", {"prompt_embeddings": _embeddings(1, 77, 6)}, "negative_prompt_embeddings is missing"),
        (
            "generate_4",
            {"prompt_embeddings": _embeddings(1, 77, 6), "negative_prompt_embeddings": _embeddings(1, 154, 6)},
            "send the same number",
        ),
    ],
)
def test_what_is_not_served_is_rejected_with_what_to_send(key: str, values: dict[str, object], says: str) -> None:
    config = _config(SchedulerType.PNDM) if "pndm" in key else _config()
    extra_outputs = ["guidance", "guidance_rescale", "noise_0", "control_scales_canny", "ip_adapter_scale"]
    if any("embeddings" in name for name in values):
        extra_outputs.append("request_text_embeddings")
    with pytest.raises(InvalidRequest, match=says):
        _ask(config, key, *extra_outputs, **values)


def test_every_input_has_one_value_for_each_sample() -> None:
    output_names = frozenset({"table_generate_4", "state"})
    with pytest.raises(InvalidRequest, match="seed has 1 values for a batch of 2"):
        compute_outputs(_config(), _inputs(2, seed=[1]).get, output_names)
    with pytest.raises(InvalidRequest, match="prompt is missing or empty"):
        compute_outputs(_config(), {"input_ids": np.empty((0, 2, 77), np.int64)}.get, output_names)
    with pytest.raises(InvalidRequest, match="prompt is missing or empty"):
        compute_outputs(_config(), lambda _name: None, output_names)


def test_noise_is_rejected_where_an_ensemble_has_no_way_for_it() -> None:
    with pytest.raises(InvalidRequest, match="eta is not supported by this ensemble"):
        _ask(_config(SchedulerType.DDIM), "generate_4", eta=[0.5])
