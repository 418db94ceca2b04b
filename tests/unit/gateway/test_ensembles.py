"""Which ensemble answers a request."""

from __future__ import annotations

import pytest

from diffusion_gateway.ensembles import Pipeline, Selection, candidates, describe, steps_of_quality
from diffusion_gateway.errors import ApiError
from tests.support.gateway.pipelines import shapes_pipeline

CONTROLNET = frozenset({"controlnet"})


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        (Selection("generate"), "generate_20_pipeline"),
        (Selection("generate", quality="low"), "generate_4_pipeline"),
        (Selection("generate", quality="medium"), "generate_20_pipeline"),
        (Selection("generate", quality="high"), "generate_50_pipeline"),
        (Selection("generate", quality="hd"), "generate_50_pipeline"),
        (Selection("generate", steps=4), "generate_4_pipeline"),
        (Selection("generate", steps=20, scheduler="heun"), "generate_20_heun_pipeline"),
        (Selection("generate", steps=20, scheduler="euler"), "generate_20_pipeline"),
        (Selection("generate", CONTROLNET), "generate_controlnet_20_pipeline"),
        (Selection("img2img", quality="low"), "img2img_4_pipeline"),
        (Selection("inpaint"), "inpaint_20_pipeline"),
    ],
)
def test_the_ensemble_of_a_request(selection: Selection, name: str) -> None:
    assert shapes_pipeline().select(selection).name == name


@pytest.mark.parametrize(
    ("selection", "param", "says"),
    [
        (Selection("generate", steps=7), "num_inference_steps", "send 4 or 20 or 50"),
        (Selection("inpaint", CONTROLNET), "control_image_<name>", "does not serve inpaint with controlnet"),
        (Selection("img2img", frozenset({"ip_adapter"})), "ip_adapter_image", "it serves generate, generate with"),
    ],
)
def test_what_is_not_served_is_answered_with_what_is(selection: Selection, param: str, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        shapes_pipeline().select(selection)
    assert caught.value.param == param


@pytest.mark.parametrize(("task", "param"), [("generate", "model"), ("img2img", "image"), ("inpaint", "mask")])
def test_a_pipeline_without_the_task(task: str, param: str) -> None:
    with pytest.raises(ApiError, match="it serves nothing yet") as caught:
        Pipeline("empty").select(Selection(task))
    assert caught.value.param == param


def test_a_step_count_that_only_a_scheduler_of_its_own_has() -> None:
    pipeline = Pipeline("p", (describe("generate_20_heun_pipeline", {}, (), 1),))
    with pytest.raises(ApiError, match="send heun") as caught:
        pipeline.select(Selection("generate", scheduler="ddim"))
    assert caught.value.param == "scheduler"


@pytest.mark.parametrize(
    ("served", "low", "medium", "high"), [([20], 20, 20, 20), ([4, 20], 4, 20, 20), ([4, 20, 50], 4, 20, 50)]
)
def test_qualities_are_step_counts(served: list[int], low: int, medium: int, high: int) -> None:
    assert [steps_of_quality(quality, served) for quality in ("low", "medium", "high")] == [low, medium, high]
    assert steps_of_quality("auto", served) == medium


def test_candidates_are_read_from_the_conditioners_tables() -> None:
    names = list(candidates(["table_generate_4", "table_img2img_20_heun", "levels", "noise_3", "table_other_4"]))
    assert names[:4] == [
        "generate_4_pipeline", "generate_controlnet_4_pipeline", "generate_ip_adapter_4_pipeline",
        "generate_controlnet_ip_adapter_4_pipeline",
    ]  # fmt: skip
    assert names[4:] == [name.replace("generate", "img2img").replace("_4_", "_20_heun_") for name in names[:4]]
    assert [describe(name, {}, (), 1).name for name in names] == names


def test_a_name_that_is_no_ensembles() -> None:
    with pytest.raises(ValueError, match="5_denoiser is not the name"):
        describe("5_denoiser", {}, (), 1)


def test_previews_are_read_from_the_outputs() -> None:
    outputs = ["image", "preview_10", "preview_2", "encoded_image"]
    assert describe("generate_20_pipeline", {}, outputs, 1).previews == (2, 10)
