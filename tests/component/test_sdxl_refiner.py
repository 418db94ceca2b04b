"""A refiner as the second denoiser of Stable Diffusion XL: what diffusers' two pipelines draw one after the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from diffusion_builder.compare.metrics import psnr
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import in_process
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import Conditioned, request_images
from tests.support.builder.repository import SHAPES, context, refused_build, sample_inputs
from tests.support.builder.xl_checkpoints import write_xl_checkpoint
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from diffusion_builder.parity.in_process import InProcessServer
    from diffusion_contract.spec import DiffusionPipelineSpec

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
# The libraries have no types.
_Base: Any = StableDiffusionXLPipeline
_Refiner: Any = StableDiffusionXLImg2ImgPipeline
_Unet: Any = UNet2DConditionModel
_PROMPT, _SIDE, _SEED, _STEPS, _START, _MIN_PSNR = "a red circle", 64, 11, 4, 0.6, 35.0
_ENSEMBLE = f"generate_{_STEPS}_pipeline"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a refiner's UNet and a store."""
    folder = tmp_path_factory.mktemp("refiner")
    write_xl_checkpoint(folder / "base", steps_offset=0)
    parts.unet("sdxl-refiner", seed=1)(folder / "refiner")
    return folder


def _spec(folder: Path, unet: str = "refiner", **fields: Any) -> DiffusionPipelineSpec:  # noqa: ANN401 - any JSON
    model = {
        "source": {"path": str(folder / "base")},
        "family": "StableDiffusionXL",
        "refiner": {"source": {"path": str(folder / unet)}, "denoisingStart": _START},
        **fields.pop("model", {}),
    }
    pipelines = [{"task": "generate", "steps": [_STEPS]}]
    return read_local({"model": model, "shapes": json.loads(SHAPES), "pipelines": pipelines, **fields})


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[InProcessServer]:
    """What the repository's files compute."""
    spec = _spec(folder, scheduler={"type": "Euler"})
    store = Store(folder / "store")
    digest = build(context(store.root), spec, parity=False)[-1]["digest"]
    with in_process.load_repository(store, store.get(Kind.REPOSITORY, str(digest))) as loaded:
        yield loaded


def _two_pipelines(folder: Path, base: Mapping[str, Any], refiner: Mapping[str, Any]) -> NDArray[np.uint8]:
    first = _Base.from_pretrained(
        folder / "base", dtype=torch.float32, local_files_only=True, add_watermarker=False
    )  # fmt: skip
    second = _Refiner(
        vae=first.vae, text_encoder=None, text_encoder_2=first.text_encoder_2, tokenizer=None,
        tokenizer_2=first.tokenizer_2, unet=_Unet.from_pretrained(folder / "refiner"), scheduler=first.scheduler,
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False,
    )  # fmt: skip
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
    shared: dict[str, Any] = {"generator": torch.Generator().manual_seed(_SEED), "num_inference_steps": _STEPS}
    latents = first(
        **shared, prompt=_PROMPT, height=_SIDE, width=_SIDE, denoising_end=_START, output_type="latent", **base
    ).images
    return np.asarray(second(**shared, prompt=_PROMPT, image=latents, denoising_start=_START, **refiner).images[0])


_CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "prompt alone": ({}, {}, {}),
    "an empty negative prompt": ({"negative_prompt": ""}, {"negative_prompt": ""}, {}),
    "prompts of both encoders": (
        {"negative_prompt": "bad", "prompt_2": "a blue star", "negative_prompt_2": "ugly"},
        {"negative_prompt": "bad", "prompt_2": "a blue star", "negative_prompt_2": "ugly"},
        {"negative_prompt": "bad", "prompt_2": "a blue star", "negative_prompt_2": "ugly"},
    ),
    "no guidance": ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
    "sizes": (
        {"original_size": (32, 48), "crop_top_left": (3, 5)},
        {"original_size": (32, 48), "crops_coords_top_left": (3, 5)},
        {"original_size": (32, 48), "crops_coords_top_left": (3, 5)},
    ),
    "scores": (
        {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.0}, {},
        {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_a_request_means_what_it_means_to_both_pipelines(name: str, folder: Path, server: InProcessServer) -> None:
    inputs, base, refiner = _CASES[name]
    actual = server.generate(_ENSEMBLE, sample_inputs(_SEED, prompt=_PROMPT, **inputs)).images[0]
    assert psnr(actual, _two_pipelines(folder, base, refiner)) >= _MIN_PSNR


def test_scores_change_the_image(server: InProcessServer) -> None:
    """Without this, parity would say nothing about them."""
    plain, scored = (
        server.generate(_ENSEMBLE, sample_inputs(_SEED, prompt=_PROMPT, **inputs)).latents
        for inputs in ({}, {"aesthetic_score": 9.0})
    )
    assert np.abs(plain - scored).max() > 1e-4


def test_a_score_beyond_what_there_is_is_refused(server: InProcessServer) -> None:
    with pytest.raises(BadInputError, match="aesthetic_score"):
        server.generate(_ENSEMBLE, sample_inputs(_SEED, prompt=_PROMPT, aesthetic_score=11.0))


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "Euler"},
        {"type": "EulerAncestral", "timestepSpacing": "trailing"},
        {"type": "DDIM"},
        {"type": "DPMSolverMultistep"},
        {"type": "UniPCMultistep"},
        {"type": "LCM"},
    ],
    ids=lambda scheduler: str(scheduler["type"]),
)
@pytest.mark.parametrize("steps", [4, 20])
def test_any_scheduler_goes_on_in_the_refiner(folder: Path, scheduler: dict[str, Any], steps: int) -> None:
    spec = _spec(folder, scheduler=scheduler, pipelines=[{"task": "generate", "steps": [steps]}])
    report = build(context(folder / "store"), spec)[-1]
    assert report["worstPSNR"] >= report["minPSNR"] == _MIN_PSNR


def test_schedulers_that_switch_at_another_call_have_ensembles_of_their_own(folder: Path) -> None:
    # Of 4 steps leading timesteps are 750, 500, 250 and 0, trailing ones 999, 749, 499 and 249; 0.6 cuts at 400.
    schedulers = [{"type": "Euler"}, {"type": "DDIM", "name": "late", "timestepSpacing": "trailing"}]
    spec = _spec(folder, schedulers=schedulers, pipelines=[{"task": "generate", "steps": [4]}])
    results: Sequence[Mapping[str, Any]] = build(context(folder / "store"), spec)
    assert results[-2]["ensembles"] == ["generate_4_pipeline", "generate_4_late_pipeline"]
    assert results[-1]["worstPSNR"] >= _MIN_PSNR


def test_real_triton_draws_what_both_pipelines_draw_with_a_controlnet_on_the_base(folder: Path) -> None:
    parts.controlnet("sdxl", seed=1)(folder / "net")
    model = {"controlNets": [{"name": "edges", "source": {"path": str(folder / "net")}}], "guidanceRescale": True}
    pipelines = [{"task": "generate", "steps": [3]}, {"task": "generate", "steps": [3], "features": ["controlnet"]}]
    results = build(context(folder / "store"), _spec(folder, model=model, pipelines=pipelines), parity=False)
    repository = Conditioned.of(folder / "store", str(results[-1]["digest"]))
    with serve(repository.models) as running:
        for ensemble in ("generate_3_pipeline", "generate_controlnet_3_pipeline"):
            images = request_images(running.http, ensemble, repository.requests[ensemble])
            ratios = [psnr(*pair) for pair in zip(images, repository.expected[ensemble], strict=True)]
            assert min(ratios) >= _MIN_PSNR


@pytest.mark.parametrize(
    ("unet", "says"),
    [
        ("sd1", "refiner: unet/config.json .* is of the family StableDiffusion: take the refiner of"),
        ("sdxl", "refiner: its UNet reads 72 features per token and 32 of a whole prompt, text_encoder_2 makes 40 and"),
        ("sdxl-inpainting", "refiner: unet/config.json has in_channels 9 with out_channels 4"),
    ],
)
def test_what_is_no_refiner_of_the_base_is_refused_before_anything_is_exported(
    tmp_path: Path, unet: str, says: str
) -> None:
    write_xl_checkpoint(tmp_path / "base")
    parts.unet(unet)(tmp_path / "other")
    refusal = refused_build(tmp_path, _spec(tmp_path, "other"))
    assert refusal.reason in (Reason.COMPONENT_MISMATCH, Reason.UNSUPPORTED_COMPONENT)
    assert refusal.args[-1] == str(refusal)
    with pytest.raises(BadInputError, match=says):
        raise refusal


@pytest.mark.parametrize(
    ("scheduler", "steps", "says"),
    [
        ("Heun", 4, "Heun has steps of several calls"),
        ("PNDM", 4, "PNDM has steps of several calls"),
        ("Euler", 1, "1 steps of scheduler euler: refiner.denoisingStart 0.6 leaves all of 1 calls to the refiner"),
    ],
)
def test_a_schedule_that_cannot_be_shared_is_refused_before_anything_is_exported(
    tmp_path: Path, scheduler: str, steps: int, says: str
) -> None:
    write_xl_checkpoint(tmp_path / "base")
    parts.unet("sdxl-refiner")(tmp_path / "refiner")
    pipelines = [{"task": "generate", "steps": [steps]}]
    refusal = refused_build(tmp_path, _spec(tmp_path, scheduler={"type": scheduler}, pipelines=pipelines))
    assert refusal.reason is Reason.UNSUPPORTED_SCHEDULER
    assert says in str(refusal)


def test_a_refiner_without_a_base_is_refused(tmp_path: Path) -> None:
    checkpoint = write_xl_checkpoint(tmp_path / "base")
    parts.unet("sdxl-refiner")(tmp_path / "refiner")
    index = json.loads((checkpoint / "model_index.json").read_text())
    alone = {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}
    (checkpoint / "model_index.json").write_text(json.dumps(index | alone))
    refusal = refused_build(tmp_path, _spec(tmp_path))
    assert refusal.reason is Reason.UNSUPPORTED_PIPELINE
    assert "needs a base: name the base in model.source, and this checkpoint in model.refiner.source" in str(refusal)
