"""Checkpoints in the formulation of EDM, as Playground 2.5: their schedulers, and statistics of their latents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from diffusion_builder.compare.metrics import psnr
from diffusion_builder.errors import Reason
from diffusion_builder.parity import in_process
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint as sd_checkpoint
from tests.support.builder.repository import SHAPES, context, refused_build
from tests.support.builder.xl_checkpoints import write_xl_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from diffusion_contract.spec import DiffusionPipelineSpec

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
# The library has no types.
_Generate: Any = StableDiffusionXLPipeline
_STATISTICS = {"latents_mean": [-1.6, 0.4, 0.9, -0.2], "latents_std": [1.5, 0.7, 2.0, 1.1]}
_SCHEDULER = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "prediction_type": "epsilon"}
_MIN_PSNR = 35.0


def _change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _playground(folder: Path) -> Path:
    write_xl_checkpoint(folder)
    scheduler = {"_class_name": "EDMDPMSolverMultistepScheduler", **_SCHEDULER}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    _change(folder / "model_index.json", scheduler=["diffusers", "EDMDPMSolverMultistepScheduler"])
    _change(folder / "vae" / "config.json", **_STATISTICS)
    return folder


def _spec(checkpoint: Path, family: str = "StableDiffusionXL", **fields: Any) -> DiffusionPipelineSpec:  # noqa: ANN401 - any JSON
    model = {"source": {"path": str(checkpoint)}, "family": family}
    return read_local({"model": model, "shapes": json.loads(SHAPES), **fields})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edm")
    _playground(folder / "checkpoint")
    return folder


@pytest.mark.parametrize("scheduler", [{}, {"type": "EDMEuler"}], ids=["the checkpoint's", "EDMEuler"])
@pytest.mark.parametrize("task", ["generate", "img2img"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_images_are_those_of_diffusers(folder: Path, scheduler: dict[str, Any], task: str, steps: int) -> None:
    spec = _spec(folder / "checkpoint", scheduler=scheduler, pipelines=[{"task": task, "steps": [steps]}])
    report = build(context(folder / "store"), spec)[-1]
    assert report["worstPSNR"] >= report["minPSNR"] == _MIN_PSNR


def test_the_image_is_that_of_the_whole_pipeline(folder: Path) -> None:
    """Without the reference of the parity stage, which decodes by itself."""
    store = Store(folder / "store")
    spec = _spec(folder / "checkpoint", pipelines=[{"task": "generate", "steps": [4]}])
    digest = build(context(store.root), spec, parity=False)[-1]["digest"]
    request = {"prompt": np.array([[b"a red circle"]], object), "seed": np.array([[3]], np.int64)}
    with in_process.load_repository(store, store.get(Kind.REPOSITORY, str(digest))) as loaded:
        actual = loaded.generate("generate_4_pipeline", request).images[0]
    pipe = _Generate.from_pretrained(folder / "checkpoint", dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    height, width = actual.shape[:2]
    expected = pipe(
        "a red circle", num_inference_steps=4, height=height, width=width, generator=torch.Generator().manual_seed(3)
    ).images[0]
    assert psnr(actual, np.asarray(expected)) >= _MIN_PSNR


@pytest.mark.parametrize(
    ("entries", "reason", "says"),
    [
        ({"latents_std": None}, Reason.UNSUPPORTED_COMPONENT, "latents_mean: latents_std is missing beside it"),
        ({"latents_mean": [1.0]}, Reason.INVALID_CONFIG, r"latents_mean is [1.0], 4 numbers are needed"),
        ({"latents_std": [1, 1, 0, 1]}, Reason.INVALID_CONFIG, "4 positive numbers are needed"),
        ({"latents_mean": "all"}, Reason.INVALID_CONFIG, "latents_mean is 'all'"),
    ],
)
def test_statistics_that_are_none_are_refused(
    tmp_path: Path, entries: dict[str, Any], reason: Reason, says: str
) -> None:
    checkpoint = _playground(tmp_path / "checkpoint")
    _change(checkpoint / "vae" / "config.json", **entries)
    refusal = refused_build(tmp_path, _spec(checkpoint))
    assert refusal.reason is reason
    assert says in str(refusal)


def test_statistics_are_refused_where_diffusers_does_not_read_them(tmp_path: Path) -> None:
    inpaint = _spec(_playground(tmp_path / "xl"), pipelines=[{"task": "inpaint", "steps": [2]}])
    assert "latents_mean of this autoencoder" in str(refused_build(tmp_path, inpaint))
    checkpoint = sd_checkpoint(tmp_path / "sd", "sd1")
    _change(checkpoint / "vae" / "config.json", **_STATISTICS)
    refusal = refused_build(tmp_path, _spec(checkpoint, "StableDiffusion"))
    assert refusal.reason is Reason.UNSUPPORTED_COMPONENT
    assert "pipelines of StableDiffusion do not read" in str(refusal)


@pytest.mark.parametrize("type_", ["Euler", "DPMSolverMultistep", "DDIM"])
def test_a_scheduler_of_another_formulation_is_refused(tmp_path: Path, type_: str) -> None:
    checkpoint = _playground(tmp_path / "checkpoint")
    refusal = refused_build(tmp_path, _spec(checkpoint, scheduler={"type": type_}))
    assert refusal.reason is Reason.UNSUPPORTED_SCHEDULER
    assert "use EDMEuler or EDMDPMSolverMultistep" in str(refusal)
