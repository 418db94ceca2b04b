"""Fields become tensors: one batched request for all images, one for each preview."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diffusion_contract.tensors import DType
from diffusion_gateway.errors import ApiError
from diffusion_gateway.fields import parse_fields
from diffusion_gateway.inference import ImageJob, field_of_input, plan_job
from tests.support.gateway.pipelines import shapes_pipeline

if TYPE_CHECKING:
    from diffusion_gateway.inference import Files


def _plan(files: Files | None = None, **values: Any) -> ImageJob:  # noqa: ANN401 - any JSON
    return plan_job(shapes_pipeline(), parse_fields({"prompt": "a red star", **values}), files or {}, seed=7)


def _values(job: ImageJob) -> dict[str, list[Any]]:
    return {tensor.name: tensor.array.tolist() for tensor in job.request.tensors}


def test_a_prompt_alone_leaves_the_rest_to_the_pipeline() -> None:
    job = _plan()
    assert (job.request.ensemble, job.request.output, job.steps) == ("generate_20_pipeline", "encoded_image", 20)
    assert _values(job) == {"prompt": [[b"a red star"]], "seed": [[7]], "output_format": [[b"PNG"]]}


def test_several_images_are_one_request_with_a_seed_each() -> None:
    job = _plan(n=3, guidance_scale=4.5)
    assert job.seeds == (7, 8, 9)
    values = _values(job)
    assert values["seed"] == [[7], [8], [9]]
    assert values["prompt"] == [[b"a red star"]] * 3
    assert values["guidance_scale"] == [[4.5]] * 3
    assert job.cost == 3


def test_every_tensor_has_the_contracts_type() -> None:
    job = _plan(
        {"image": (b"file",)}, size="64x128", negative_prompt="blurred", output_format="webp", output_compression=0,
        strength="0.5", paste_back="true", upscale_width="256", scheduler="euler",
    )  # fmt: skip
    types = {tensor.name: (tensor.dtype, tensor.array.dtype.type) for tensor in job.request.tensors}
    assert job.request.ensemble == "img2img_20_pipeline"
    assert types == {
        "prompt": (DType.BYTES, np.object_), "negative_prompt": (DType.BYTES, np.object_),
        "seed": (DType.INT64, np.int64), "height": (DType.INT32, np.int32), "width": (DType.INT32, np.int32),
        "output_format": (DType.BYTES, np.object_), "quality": (DType.INT32, np.int32),
        "strength": (DType.FP32, np.float32), "paste_back": (DType.BOOL, np.bool_),
        "upscale_width": (DType.INT32, np.int32), "scheduler": (DType.BYTES, np.object_),
        "input_image_file": (DType.BYTES, np.object_),
    }  # fmt: skip
    values = _values(job)
    assert (values["height"], values["width"], values["quality"]) == ([[128]], [[64]], [[1]])
    assert (values["paste_back"], values["output_format"]) == ([[True]], [[b"WEBP"]])


def test_a_mask_makes_it_inpainting_and_files_are_sent_for_each_image() -> None:
    job = _plan({"image": (b"image",), "mask": (b"mask",)}, n=2)
    assert job.request.ensemble == "inpaint_20_pipeline"
    assert _values(job)["mask_file"] == [[b"mask"]] * 2


def test_a_control_image_selects_the_ensemble_with_controlnet() -> None:
    job = _plan({"control_image_canny": (b"edges",)}, control_scale_canny=0.5)
    assert job.request.ensemble == "generate_controlnet_20_pipeline"
    assert _values(job)["control_image_canny_file"] == [[b"edges"]]
    assert _values(job)["control_scale_canny"] == [[0.5]]


def test_a_scheduler_with_ensembles_of_its_own_is_in_the_name_and_not_in_the_tensors() -> None:
    job = _plan(scheduler="heun", num_inference_steps=20)
    assert job.request.ensemble == "generate_20_heun_pipeline"
    assert "scheduler" not in _values(job)


@pytest.mark.parametrize(
    ("count", "outputs"),
    [
        (0, []),
        (1, ["preview_15"]),
        (2, ["preview_5", "preview_15"]),
        (3, ["preview_2", "preview_5", "preview_15"]),
    ],
)
def test_partial_images_are_requests_of_their_own(count: int, outputs: list[str]) -> None:
    job = _plan(stream=True, partial_images=count, n=2)
    assert [request.output for request in job.previews] == outputs
    assert {request.ensemble for request in job.previews} <= {job.request.ensemble}
    assert job.cost == 2 * (1 + count)


def test_fewer_previews_than_partial_images() -> None:
    job = _plan(stream=True, partial_images=3, quality="low")
    assert [request.output for request in job.previews] == ["preview_2"]


@pytest.mark.parametrize(
    ("values", "param", "says"),
    [
        ({"n": 9}, "n", "send 1 to 8"),
        ({"strength": 0.5}, "strength", "generate_20_pipeline has no such input"),
        ({"promt": "x"}, "promt", "has no such input"),
        ({"quality": "high", "stream": True, "partial_images": 1}, "partial_images", "has no previews"),
        ({"guidance_scale": "much"}, "guidance_scale", "valid number"),
        ({"contrast": [1, 2]}, "contrast", "valid number"),
        ({"upscale_width": 2**31}, "upscale_width", "out of range"),
        ({"input_image": "x"}, "input_image", "send image"),
        ({"input_image_file": "x"}, "input_image_file", "has no such input"),
    ],
)
def test_what_the_ensemble_does_not_take_is_named(values: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        _plan(**values)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("files", "param", "says"),
    [
        ({"image": (b"a", b"b")}, "image", "send one image"),
        ({"control_image_depth": (b"a",)}, "control_image_depth", "has no such input"),
        ({"blend_mask": (b"a",)}, "blend_mask", "has no such input"),
    ],
)
def test_images_that_the_ensemble_does_not_take_are_named(files: Files, param: str, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        _plan(files)
    assert caught.value.param == param


def test_inputs_of_the_pipeline_have_their_names_in_the_api() -> None:
    names = ["height", "width", "quality", "input_image", "input_image_file", "mask_file", "guidance_scale"]
    expected = ["size", "size", "output_compression", "image", "image", "mask", "guidance_scale"]
    assert [field_of_input(name) for name in names] == expected


def test_a_size_outside_of_all_buckets_is_refused_with_their_list() -> None:
    pipeline = replace(shapes_pipeline(), buckets=((64, 128), (128, 64)))
    for size in ("64x128", "auto"):
        plan_job(pipeline, parse_fields({"prompt": "a red star", "size": size}), {}, seed=7)
    with pytest.raises(ApiError) as caught:
        plan_job(pipeline, parse_fields({"prompt": "a red star", "size": "128x128"}), {}, seed=7)
    assert caught.value.param == "size"
    assert caught.value.message == "size 128x128 is not served by the model shapes: send 64x128 or 128x64"
