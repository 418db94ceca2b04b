"""The preprocessor's arithmetic: equal to the classes of diffusers and transformers that pipelines use."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from diffusers.image_processor import IPAdapterMaskProcessor, VaeImageProcessor
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from diffusion_builder.models.errors import InvalidRequest
from diffusion_builder.models.preprocess import PreprocessorConfig, preprocess
from diffusion_builder.models.request_inputs import SizeRange, SupportedSizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = SizeRange(64, 64, 128)
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIG = PreprocessorConfig(SupportedSizes(_SIDE, _SIDE), 8, 224, _MEAN, _STD, ("canny", "depth"))
_NOISE = np.random.default_rng(3).integers(0, 256, (90, 70, 3), np.uint8)
_IDS = np.ones((1, 2, 77), np.int64)


def tensor_of(name: str, settings: PreprocessorConfig = CONFIG, **inputs: Any) -> NDArray[np.float32]:  # noqa: ANN401 - arrays
    """One output for a single sample."""
    arrays: dict[str, NDArray[Any]] = {"input_ids": _IDS} | {
        key: np.asarray(value)[None] for key, value in inputs.items()
    }
    return preprocess(settings, arrays.get, [name])[name]


def rectangle(height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 : width * 5 // 6] = 255
    return mask


def test_settings_are_what_the_builder_writes() -> None:
    body = {
        "height": asdict(_SIDE), "width": asdict(_SIDE), "pixelsPerLatent": 8, "imageSize": 224, "imageMean": _MEAN,
        "imageStd": _STD, "controlNets": ["canny", "depth"],
    }  # fmt: skip
    assert PreprocessorConfig.from_json(json.dumps(body)) == CONFIG


_BUCKETS = {"buckets": [[128, 64], [64, 128]], "height": asdict(_SIDE) | {"opt": 128}, "width": asdict(_SIDE)}


def _bucket_config() -> PreprocessorConfig:
    body = {"pixelsPerLatent": 8, "imageSize": 0, "imageMean": [], "imageStd": [], "controlNets": []}
    return PreprocessorConfig.from_json(json.dumps(_BUCKETS | body))


def test_an_image_of_a_bucket_keeps_its_size_and_the_first_bucket_is_the_default() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    assert tensor_of("pixels", _bucket_config(), input_image=image).shape == (1, 3, 64, 128)
    assert tensor_of("ip_adapter_region", _bucket_config()).shape == (1, 1, 16, 8)


@pytest.mark.parametrize("inputs", [{"height": [64], "width": [64]}, {"height": [64]}, {"height": [96], "width": [64]}])
def test_a_size_outside_of_all_buckets_is_refused_with_those_that_there_are(inputs: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidRequest, match=r"are not supported together: send height and width of one of 128 x 64, 64"
    ):
        tensor_of("ip_adapter_region", _bucket_config(), **inputs)


@pytest.mark.parametrize("size", [(64, 64), (96, 72), (128, 128)])
def test_pixels_equal_diffusers(size: tuple[int, int]) -> None:
    height, width = size
    reference = VaeImageProcessor().preprocess(Image.fromarray(_NOISE), height=height, width=width).numpy()
    actual = tensor_of("pixels", input_image=_NOISE, height=[height], width=[width])
    assert np.array_equal(actual, reference)
    assert actual.dtype == np.float32


def test_control_pixels_equal_diffusers() -> None:
    processor = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
    reference = processor.preprocess(Image.fromarray(_NOISE), height=64, width=96).numpy()
    actual = tensor_of("control_pixels_depth", control_image_depth=_NOISE, height=[64], width=[96])
    assert np.array_equal(actual, reference)
    assert 0 <= actual.min() <= actual.max() <= 1


def test_masks_equal_diffusers_where_they_are_black_and_white() -> None:
    mask = rectangle()
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    reference = processor.preprocess(Image.fromarray(mask), height=64, width=64)
    latent = nnf.interpolate(reference, size=(8, 8)).numpy()
    image = VaeImageProcessor().preprocess(Image.fromarray(_NOISE), height=64, width=64)
    inputs: dict[str, Any] = {"input_image": _NOISE, "mask": mask, "height": [64], "width": [64]}
    assert np.array_equal(tensor_of("latent_mask", **inputs), latent)
    assert np.array_equal(tensor_of("masked_pixels", **inputs), (image * (reference < 0.5)).numpy())


def test_a_mask_of_another_size_is_resized_as_diffusers_does_but_stays_soft() -> None:
    mask = rectangle(100, 50)
    processor = VaeImageProcessor(do_normalize=False, do_convert_grayscale=True)
    reference = processor.preprocess(Image.fromarray(mask), height=64, width=64)
    actual = tensor_of("latent_mask", mask=mask)
    assert np.array_equal(actual, nnf.interpolate(reference, size=(8, 8)).numpy())
    assert ((actual > 0) & (actual < 1)).any()


def test_feather_softens_the_edge_and_nothing_far_from_it() -> None:
    hard = np.zeros((64, 64), np.uint8)
    hard[:, 32:] = 255
    plain, soft = (
        tensor_of("latent_mask", mask=hard)[0, 0, 0],
        tensor_of("latent_mask", mask=hard, mask_feather=[4.0])[0, 0, 0],
    )
    assert plain.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert 0.3 < soft[4] < 0.7
    assert (soft[0], soft[-1]) == (0, 1)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_region_equals_diffusers_at_the_latent_s_size(factor: int) -> None:
    mask, edge = rectangle(), 64 // factor
    reference = IPAdapterMaskProcessor().preprocess(Image.fromarray(mask), height=64, width=64)[0]
    downsampled = IPAdapterMaskProcessor.downsample(reference, 1, edge * edge, 1).reshape(1, 1, edge, edge)
    settings = PreprocessorConfig(SupportedSizes(_SIDE, _SIDE), factor, 224, _MEAN, _STD, ())
    assert np.abs(tensor_of("ip_adapter_region", settings, ip_adapter_mask=mask) - downsampled.numpy()).max() < 1e-6


def test_without_a_mask_the_reference_applies_everywhere() -> None:
    assert np.array_equal(tensor_of("ip_adapter_region", width=[96]), np.ones((1, 1, 8, 12), np.float32))


@pytest.mark.parametrize("shape", [(90, 70), (70, 90), (224, 224), (300, 1000), (1001, 333)])
def test_reference_pixels_equal_transformers(shape: tuple[int, int]) -> None:
    image = np.asarray(Image.fromarray(_NOISE).resize(shape[::-1]))
    reference = CLIPImageProcessorPil()(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    actual = tensor_of("reference_pixels", ip_adapter_image=image[None])
    assert actual.shape == (1, 1, 3, 224, 224)
    assert torch.equal(torch.from_numpy(actual[0]), reference.float())


def test_size_is_what_is_sent_else_the_image_s_else_the_default() -> None:
    fitting = np.zeros((96, 128, 3), np.uint8)
    assert tensor_of("pixels", input_image=fitting).shape == (1, 3, 96, 128)
    assert tensor_of("pixels", input_image=fitting, width=[64]).shape == (1, 3, 96, 64)
    assert tensor_of("control_pixels_canny", control_image_canny=fitting).shape == (1, 3, 64, 64)


_IMAGE = np.zeros((64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("output", "inputs", "says"),
    [
        ("pixels", {}, "input_image is missing: send input_image"),
        ("latent_mask", {"input_image": _IMAGE}, "mask is missing: send mask"),
        ("masked_pixels", {"mask": rectangle()}, "input_image is missing"),
        ("reference_pixels", {}, "ip_adapter_image is missing"),
        ("control_pixels_canny", {"control_image_depth": _IMAGE}, "control_image_canny is missing"),
        ("control_pixels_canny", {"control_image_canny": np.zeros((8, 8, 4), np.uint8)}, "send UINT8"),
        ("pixels", {"input_image": np.zeros((65, 64, 3), np.uint8)}, "has the height 65, .* send height as well"),
        ("pixels", {"input_image": np.zeros((64, 512, 3), np.uint8)}, "a multiple of 8 from 64 to 128 pixels"),
        ("pixels", {"input_image": _IMAGE, "height": [256]}, "height 256 is not supported"),
        ("pixels", {"input_image": _IMAGE, "blend_mask": np.zeros((8, 8, 4), np.uint8)}, "blend_mask has the shape"),
        (
            "latent_mask",
            {"mask": rectangle(), "mask_feather": [-1.0]},
            "mask_feather -1 is not supported: send 0 to",
        ),
        ("latent_mask", {"mask": rectangle(), "mask_feather": [np.nan]}, "mask_feather nan is not supported"),
        ("reference_pixels", {"ip_adapter_image": np.zeros((1, 1, 21, 3), np.uint8)}, "at most 20 times"),
    ],
)
def test_what_is_missing_or_unfit_is_rejected_with_what_to_send(output: str, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        tensor_of(output, **inputs)


def test_each_sample_has_its_own_image_and_all_have_one_size() -> None:
    read = {"input_ids": np.repeat(_IDS, 2, axis=0), "input_image": np.stack([_IMAGE, _IMAGE + 255])}
    pixels = preprocess(CONFIG, read.get, ["pixels"])["pixels"]
    assert [sample.mean() for sample in pixels] == [-1, 1]
    with pytest.raises(InvalidRequest, match="height has 1 values for a batch of 2"):
        preprocess(CONFIG, (read | {"height": np.array([[64]])}).get, ["pixels"])
    with pytest.raises(InvalidRequest, match="one request per size"):
        preprocess(CONFIG, (read | {"height": np.array([[64], [72]])}).get, ["pixels"])


@pytest.mark.parametrize(("name", "shape"), [("prompt_embeddings", (2, 77, 8)), ("guidance", (2, 1))])
def test_embeddings_and_guidance_carry_the_batch_as_well(name: str, shape: tuple[int, ...]) -> None:
    read = {name: np.zeros(shape, np.float32)}
    assert preprocess(CONFIG, read.get, ["ip_adapter_region"])["ip_adapter_region"].shape == (2, 1, 8, 8)
    with pytest.raises(InvalidRequest, match="prompt is missing or empty"):
        preprocess(CONFIG, lambda _name: None, ["ip_adapter_region"])
