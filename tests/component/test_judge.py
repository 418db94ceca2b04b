"""Golden pictures of real Triton: another scheduler is no worse picture, and broken numbers are recognised."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from diffusion_builder.judge import JudgeSpec, judge
from diffusion_builder.serving.triton_client import TritonClient
from diffusion_builder.store import Store
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.builder.repository import Built
    from tests.support.triton.tritonserver import Server

_ENSEMBLES = ("generate_20_pipeline", "generate_4_pipeline")


def verdict(folder: Path, stable: str, canary: str, **limits: float) -> Mapping[str, object]:
    spec = JudgeSpec.model_validate({"stable": "a", "canary": "b", "ensembles": _ENSEMBLES, **limits})
    servers = (TritonClient(stable, 60.0), TritonClient(canary, 60.0))
    artifact, _ = judge(Store(folder), servers, spec, lambda *_: None)
    assert (artifact.path / "sheet.png").exists()
    return artifact.manifest.extra


@pytest.fixture(scope="module")
def broken(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same repository, and a denoiser whose last bias is NaN."""
    models = tmp_path_factory.mktemp("broken") / "models"
    shutil.copytree(built.models, models)
    file = models / "5_denoiser" / "1" / "model.onnx"
    graph = onnx.load_model(str(file))
    bias = next(item for item in graph.graph.initializer if "conv_out.bias" in item.name)
    bias.CopyFrom(numpy_helper.from_array(np.full(tuple(bias.dims), np.nan, np.float32), bias.name))
    file.with_name("model.onnx.data").unlink(missing_ok=True)
    onnx.save_model(graph, str(file))
    with serve(models) as server:
        yield server


def test_a_server_is_as_good_as_itself(ddim: Server, tmp_path: Path) -> None:
    found = verdict(tmp_path, ddim.http, ddim.http, minPSNR=45, minSSIM=0.99)
    assert (found["passed"], found["colorShift"]) == (True, 0)


def test_another_scheduler_passes(ddim: Server, euler: Server, tmp_path: Path) -> None:
    found = verdict(tmp_path, ddim.http, euler.http)
    assert found["passed"] is True, found["message"]


def test_a_denoiser_of_nan_is_recognised(ddim: Server, broken: Server, tmp_path: Path) -> None:
    found = verdict(tmp_path, ddim.http, broken.http)
    assert (found["passed"], found["reason"]) == (False, "NotFinite")
