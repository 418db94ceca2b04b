"""The repository that `benchmarks.ensemble` measures: the demo checkpoint's, and a model for each loop inside Triton.

It can be measured on another machine than the one that has built it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.ensemble_models import graphs
from diffusion_builder.graphs.onnx_files import MODEL, WEIGHTS
from diffusion_contract import tensors
from tests.support.builder.checkpoints import DEMO
from tests.support.builder.repository import build_repository

INSTANCES = 16
_MODELS = Path(__file__).with_name("ensemble_models")


def prepare(models: Path, device: str) -> None:
    """Build the demo checkpoint and write a repository with all contenders.

    Args:
        models: the folder to write, which must not exist.
        device: `cpu`, or `cuda`: then denoiser and VAE run on a GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        built = store / "repositories" / str(build_repository(store, DEMO)[-1]["digest"]) / "models"
        shutil.copytree(built, models)
        if device == "cuda":
            for part, component in graphs.ON_GPU.items():
                _to_gpu(DEMO / part, models / tensors.MODEL_NAMES[component] / "1")
    _add_model(models, "bls", "bls", INSTANCES)
    _add_model(models, "python", "sessions", 1)


def _to_gpu(weights: Path, version: Path) -> None:
    """Have what an engine was exported from run on a GPU.

    The scheduler step, a few sums of small tensors, and the text encoder, one call per image, stay on the CPU.
    """
    for file in (MODEL, WEIGHTS):
        (version / file).unlink(missing_ok=True)
    shutil.copytree(weights, version / weights.name)
    shutil.copy(_MODELS / "engine.py", version / "model.py")
    shutil.copy(_MODELS / "graphs.py", version)


def _add_model(models: Path, name: str, engines: str, instances: int) -> None:
    """Write a model that runs the loop."""
    version = models / name / "1"
    version.mkdir(parents=True)
    for source in ("model.py", "loop.py", "graphs.py"):
        shutil.copy(_MODELS / source, version)
    inputs = {"prompt": "STRING", "seed": "INT64", "guidance_scale": "FP32", "steps": "INT32"}
    outputs = {"encoded_image": "STRING", "engine_seconds": "FP32"}
    lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 1"]
    lines += [f'input {{ name: "{each}" data_type: TYPE_{kind} dims: [1] }}' for each, kind in inputs.items()]
    lines += [f'output {{ name: "{each}" data_type: TYPE_{kind} dims: [1] }}' for each, kind in outputs.items()]
    lines += [f'parameters {{ key: "engines" value {{ string_value: "{engines}" }} }}']
    lines += [f"instance_group {{ kind: KIND_CPU count: {instances} }}"]
    (models / name / "config.pbtxt").write_text("\n".join(lines) + "\n")
