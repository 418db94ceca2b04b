"""Requests to Stable Diffusion XL: texts, sizes and defaults mean what they mean to diffusers."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image

from diffusion_builder.compare.metrics import psnr
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import in_process
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint as sd_checkpoint
from tests.support.builder.repository import SHAPES, context, sample_inputs
from tests.support.builder.xl_checkpoints import write_xl_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from diffusion_builder.parity.in_process import InProcessServer
    from diffusion_contract.spec import DiffusionPipelineSpec

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
# The libraries have no types.
_Generate: Any = StableDiffusionXLPipeline
_Img2Img: Any = StableDiffusionXLImg2ImgPipeline
_PROMPT, _OTHER = "a red circle", "a blue star"
_SIDE, _SEED, _MIN_PSNR = 64, 11, 35.0
_IMAGE = np.random.default_rng(1).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)


def _spec(checkpoint: Path, family: str = "StableDiffusionXL", **fields: Any) -> DiffusionPipelineSpec:  # noqa: ANN401 - any JSON
    model = {"source": {"path": str(checkpoint)}, "family": family, **fields.pop("model", {})}
    return read_local({"model": model, "shapes": json.loads(SHAPES), **fields})


@pytest.fixture(scope="module", params=[True, False], ids=["zeros", "empty text"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Left out negative prompts are zeros, or empty texts."""
    folder = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    return write_xl_checkpoint(folder, steps_offset=0, force_zeros=request.param)


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    """What the repository's files compute."""
    spec = _spec(
        checkpoint,
        scheduler={"type": "Euler"},
        pipelines=[{"task": "generate", "steps": [2]}, {"task": "img2img", "steps": [2]}],
    )
    store = tmp_path_factory.mktemp("store")
    digest = build(context(store), spec, parity=False)[-1]["digest"]
    with in_process.load_repository(Store(store), Store(store).get(Kind.REPOSITORY, str(digest))) as loaded:
        yield loaded


def _reference_image(pipeline_class: Any, checkpoint: Path, **arguments: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - the library has no types
    pipe = pipeline_class.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return np.asarray(pipe(generator=torch.Generator().manual_seed(_SEED), **arguments).images[0])


_CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prompt alone": ({}, {}),
    "an empty negative prompt": ({"negative_prompt": ""}, {"negative_prompt": ""}),
    "prompts of both encoders": (
        {"negative_prompt": "bad", "prompt_2": _OTHER, "negative_prompt_2": "ugly"},
        {"negative_prompt": "bad", "prompt_2": _OTHER, "negative_prompt_2": "ugly"},
    ),
    "no guidance": ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
    "sizes": (
        {"original_size": (32, 48), "crop_top_left": (3, 5), "target_size": (128, 96)},
        {"original_size": (32, 48), "crops_coords_top_left": (3, 5), "target_size": (128, 96)},
    ),
    "negative sizes": (
        {
            "negative_original_size": (16, 24), "negative_crop_top_left": (7, 9),
            "negative_target_size": (1024, 1000), "negative_prompt": "bad",
        },
        {
            "negative_original_size": (16, 24), "negative_crops_coords_top_left": (7, 9),
            "negative_target_size": (1024, 1000), "negative_prompt": "bad",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_a_request_means_what_it_means_to_diffusers(name: str, checkpoint: Path, server: InProcessServer) -> None:
    inputs, arguments = _CASES[name]
    actual = server.generate("generate_2_pipeline", sample_inputs(_SEED, prompt=_PROMPT, **inputs)).images[0]
    sizes = {"num_inference_steps": 2, "height": _SIDE, "width": _SIDE}
    expected = _reference_image(_Generate, checkpoint, prompt=_PROMPT, **sizes, **arguments)
    assert psnr(actual, expected) >= _MIN_PSNR


def test_what_is_left_out_of_img2img_has_the_defaults_of_diffusers(checkpoint: Path, server: InProcessServer) -> None:
    request = {**sample_inputs(_SEED, prompt=_PROMPT, target_size=(128, 96)), "input_image": _IMAGE[None]}
    actual = server.generate("img2img_2_pipeline", request).images[0]
    # Two steps at strength 0.3 are the last of seven.
    arguments = {"prompt": _PROMPT, "image": Image.fromarray(_IMAGE), "num_inference_steps": 7}
    expected = _reference_image(_Img2Img, checkpoint, target_size=(128, 96), original_size=(_SIDE, _SIDE), **arguments)
    assert psnr(actual, expected) >= _MIN_PSNR


@pytest.mark.parametrize("name", [name for name in _CASES if name != "prompt alone"])
def test_each_input_changes_the_image(name: str, server: InProcessServer) -> None:
    """Without this, parity would say nothing about the input."""
    inputs, _ = _CASES[name]
    plain, changed = (
        server.generate("generate_2_pipeline", sample_inputs(_SEED, prompt=_PROMPT, **added)).latents
        for added in ({}, inputs)
    )
    if name == "an empty negative prompt" and not _zeroes(server):
        assert np.array_equal(plain, changed)
    else:
        assert np.abs(plain - changed).max() > 1e-4


def _zeroes(server: InProcessServer) -> bool:
    ids = server.runs["1_tokenizer"](sample_inputs(_SEED, prompt=_PROMPT), ("input_ids",))["input_ids"]
    return bool((ids[:, 0] == -1).all())


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"original_size": (-1, 64)}, "original_size \\[\\[-1, 64\\]\\] is not supported: send two numbers from 0"),
        ({"negative_target_size": (64, 20000)}, "negative_target_size .* from 0 to 16384"),
        ({"crop_top_left": 3.0}, "crop_top_left has the shape \\[1, 1\\]: send two numbers for each sample"),
    ],
)
def test_sizes_that_are_none_are_refused(server: InProcessServer, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        server.generate("generate_2_pipeline", sample_inputs(_SEED, prompt=_PROMPT, **inputs))


def test_a_second_negative_prompt_alone_is_refused_where_it_would_have_no_effect(server: InProcessServer) -> None:
    request = sample_inputs(_SEED, prompt=_PROMPT, negative_prompt_2="bad")
    if not _zeroes(server):
        assert server.generate("generate_2_pipeline", request).images.shape == (1, _SIDE, _SIDE, 3)
        return
    with pytest.raises(BadInputError, match="negative_prompt_2 needs negative_prompt: send that too"):
        server.generate("generate_2_pipeline", request)


def _refusal(folder: Path, spec: DiffusionPipelineSpec) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        build(context(folder / "store"), spec)
    assert not list((folder / "store" / "onnx").glob("*"))
    return caught.value


def test_a_checkpoint_of_another_family_than_requested_is_refused(tmp_path: Path) -> None:
    refusals = [
        _refusal(tmp_path, _spec(write_xl_checkpoint(tmp_path / "xl"), "StableDiffusion")),
        _refusal(tmp_path, _spec(sd_checkpoint(tmp_path / "sd", "sd1"))),
    ]
    assert {item.reason for item in refusals} == {Reason.COMPONENT_MISMATCH}
    assert "'StableDiffusionXLPipeline' of the family StableDiffusionXL, but StableDiffusion is" in str(refusals[0])
    assert "'StableDiffusionPipeline' of the family StableDiffusion, but StableDiffusionXL is" in str(refusals[1])


def test_additions_of_the_other_family_are_refused_before_anything_is_exported(tmp_path: Path) -> None:
    folder = write_xl_checkpoint(tmp_path / "xl")
    parts.controlnet("sd1")(tmp_path / "net")
    nets = {"controlNets": [{"name": "edges", "source": {"path": str(tmp_path / "net")}}]}
    assert "controlnet/config.json" in str(_refusal(tmp_path, _spec(folder, model=nets)))
    parts.unet("sd1")(tmp_path / "unet")
    unet = {"components": {"denoiser": {"source": {"path": str(tmp_path / "unet")}}}}
    assert "unet/config.json" in str(_refusal(tmp_path, _spec(folder, model=unet)))


@pytest.mark.parametrize("folder", ["text_encoder", "text_encoder_2", "tokenizer_2"])
def test_a_missing_part_is_named(tmp_path: Path, folder: str) -> None:
    checkpoint = write_xl_checkpoint(tmp_path / "xl")
    shutil.rmtree(checkpoint / folder)
    refusal = _refusal(tmp_path, _spec(checkpoint))
    assert refusal.reason is Reason.MISSING_COMPONENT
    assert f"there is no folder {folder}" in str(refusal)


def test_the_refiner_is_refused_by_its_class(tmp_path: Path) -> None:
    checkpoint = write_xl_checkpoint(tmp_path / "xl")
    index = json.loads((checkpoint / "model_index.json").read_text())
    refiner = {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}
    (checkpoint / "model_index.json").write_text(json.dumps(index | refiner))
    refusal = _refusal(tmp_path, _spec(checkpoint))
    assert refusal.reason is Reason.UNSUPPORTED_PIPELINE


def test_a_second_prompt_is_no_input_of_stable_diffusion_1(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    spec = _spec(
        sd_checkpoint(tmp_path / "sd", "sd1"), "StableDiffusion", pipelines=[{"task": "generate", "steps": [2]}]
    )
    digest = build(context(store.root), spec, parity=False)[-1]["digest"]
    with in_process.load_repository(store, store.get(Kind.REPOSITORY, str(digest))) as loaded:
        inputs = {port.name for port in loaded.ensembles["generate_2_pipeline"].inputs}
    assert inputs.isdisjoint({"prompt_2", "negative_prompt_2", "original_size", "time_ids"})


def test_an_autoencoder_that_overflows_stays_in_float32_and_images_are_none_of_one_color(tmp_path: Path) -> None:
    checkpoint = write_xl_checkpoint(tmp_path / "xl")
    path = checkpoint / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"force_upcast": True}))
    results = build(
        context(tmp_path / "store"),
        _spec(checkpoint, precision="float16", pipelines=[{"task": "generate", "steps": [2]}]),
    )
    exported = {item["component"]: item["precision"] for item in results if item["stage"] == "export"}
    assert exported["vae_decoder"] == "float32"
    assert exported["denoiser"] == exported["text_encoder_2"] == "float16"
    assert results[-1]["worstPSNR"] >= results[-1]["minPSNR"] == 30.0


@pytest.fixture(scope="module")
def few_steps_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Schedulers are tables: all of them share the engines in one store."""
    return tmp_path_factory.mktemp("few-steps")


@pytest.mark.parametrize("task", ["generate", "img2img", "inpaint"])
def test_noise_of_the_stochastic_dpm_solver_is_that_of_diffusers_in_every_task(
    few_steps_store: Path, task: str
) -> None:
    scheduler = {"type": "DPMSolverMultistep", "algorithmType": "sde-dpmsolver++"}
    checkpoint = few_steps_store / "checkpoint"
    if not checkpoint.exists():
        write_xl_checkpoint(checkpoint)
    spec = _spec(checkpoint, scheduler=scheduler, pipelines=[{"task": task, "steps": [4]}])
    report = build(context(few_steps_store / "store"), spec)[-1]
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "Euler", "timestepSpacing": "trailing"},
        {"type": "EulerAncestral", "timestepSpacing": "trailing"},
        {"type": "LCM"},
        {"type": "TCD"},
    ],
    ids=lambda scheduler: scheduler["type"],
)
@pytest.mark.parametrize("steps", [1, 4])
def test_few_steps_draw_what_diffusers_draws(few_steps_store: Path, scheduler: dict[str, Any], steps: int) -> None:
    checkpoint = few_steps_store / "checkpoint"
    if not checkpoint.exists():
        write_xl_checkpoint(checkpoint)
    pipelines = [{"task": "generate", "steps": [steps]}]
    report = build(context(few_steps_store / "store"), _spec(checkpoint, scheduler=scheduler, pipelines=pipelines))[-1]
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0
