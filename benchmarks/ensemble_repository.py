"""The repository that `benchmarks.ensemble` measures: the demo checkpoint's, and a model for each loop inside Triton.

It stands by itself, so that it can be measured on a machine where nothing can be built.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from diffusion_builder import contract
from diffusion_builder.check.served import graph_of
from diffusion_builder.contract import Component
from diffusion_builder.onnx_files import MODEL, WEIGHTS
from diffusion_builder.store import Store
from tests.component.checkpoints import DEMO
from tests.component.conftest import make

INSTANCES = 16
_MODELS = Path(__file__).with_name("ensemble_models")
# The scheduler step is a few sums of small tensors: the way to the GPU would take longer.
_ON_GPU = (Component.TEXT_ENCODER, Component.DENOISER, Component.VAE_DECODER)
_PROVIDER = 'parameters { key: "execution_provider" value { string_value: "CUDAExecutionProvider" } }\n'


def prepare(models: Path, device: str) -> None:
    """Build the demo checkpoint and write a repository with all contenders.

    Args:
        models: the folder to write, which must not exist.
        device: `cpu`, or `cuda`: then text encoder, denoiser and VAE run with ONNX Runtime on a GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        built = store / "repositories" / str(make(store, DEMO)[-1]["digest"]) / "models"
        shutil.copytree(built, models)
        if device == "cuda":
            for component in _ON_GPU:
                _to_gpu(Store(store), built, models, contract.MODEL_NAMES[component])
    _add_model(models, "bls", "bls", INSTANCES)
    _add_model(models, "python", "sessions", 1)


def _to_gpu(store: Store, built: Path, models: Path, name: str) -> None:
    """Take the graph as it was exported, since the engine is optimised for a CPU, and have it run on a GPU."""
    graph = graph_of(store, built / name / "1")
    for file in (MODEL, WEIGHTS):
        (models / name / "1" / file).unlink(missing_ok=True)
        if (graph.path / file).exists():
            shutil.copyfile(graph.path / file, models / name / "1" / file)
    with (models / name / "config.pbtxt").open("a") as config:
        config.write(_PROVIDER)


def _add_model(models: Path, name: str, engines: str, instances: int) -> None:
    """Write a model that runs the loop."""
    version = models / name / "1"
    version.mkdir(parents=True)
    for source in _MODELS.glob("*.py"):
        shutil.copy(source, version)
    inputs = {"prompt": "STRING", "seed": "INT64", "guidance_scale": "FP32", "steps": "INT32"}
    outputs = {"encoded_image": "STRING", "engine_seconds": "FP32"}
    lines = [f'name: "{name}"', 'backend: "python"', "max_batch_size: 1"]
    lines += [f'input {{ name: "{each}" data_type: TYPE_{kind} dims: [1] }}' for each, kind in inputs.items()]
    lines += [f'output {{ name: "{each}" data_type: TYPE_{kind} dims: [1] }}' for each, kind in outputs.items()]
    lines += [f'parameters {{ key: "engines" value {{ string_value: "{engines}" }} }}']
    lines += [f"instance_group {{ kind: KIND_CPU count: {instances} }}"]
    (models / name / "config.pbtxt").write_text("\n".join(lines) + "\n")
