"""Golden images of real Triton: another scheduler is no worse image, and broken numbers are recognised."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from diffusion_builder.compare.stage import compare
from diffusion_builder.serving.triton_client import TritonClient
from diffusion_builder.store import Store
from diffusion_contract.comparison import CompareSpec
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.support.builder.repository import Built
    from tests.support.triton.tritonserver import Server

    Array = NDArray[Any]

_ENSEMBLES = ("generate_20_pipeline", "generate_4_pipeline")


def verdict(folder: Path, stable: str, canary: str, **limits: float) -> Mapping[str, object]:
    spec = CompareSpec.model_validate({"stable": "a", "canary": "b", "ensembles": _ENSEMBLES, **limits})
    servers = (TritonClient(stable, 300.0), TritonClient(canary, 300.0))
    artifact, _ = compare(Store(folder), servers, spec, lambda *_: None)
    assert (artifact.path / "sheet.png").exists()
    return artifact.manifest.extra


def nan(bias: Array, weights: Array) -> tuple[Array, Array]:
    return np.full_like(bias, np.nan), weights


def shuffled(bias: Array, weights: Array) -> tuple[Array, Array]:
    return bias, weights.ravel()[::-1].reshape(weights.shape)


@contextmanager
def corrupted(built: Built, folder: Path, corrupt: Callable[[Array, Array], tuple[Array, Array]]) -> Iterator[Server]:
    """The same repository, and a denoiser whose last convolution is another."""
    models = folder / "models"
    shutil.copytree(built.models, models)
    file = models / "5_denoiser" / "1" / "model.onnx"
    graph = onnx.load_model(str(file))
    tensors = [
        next(item for item in graph.graph.initializer if f"conv_out.{name}" in item.name) for name in ("bias", "weight")
    ]
    for tensor, values in zip(tensors, corrupt(*map(numpy_helper.to_array, tensors)), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    file.with_name("model.onnx.data").unlink(missing_ok=True)
    onnx.save_model(graph, str(file))
    with serve(models) as server:
        yield server


def test_a_server_is_as_good_as_itself(ddim: Server, tmp_path: Path) -> None:
    report = verdict(tmp_path, ddim.http, ddim.http, minPSNR=45, minSSIM=0.99)
    assert (report["passed"], report["colorShift"]) == (True, 0)


def test_another_scheduler_passes(ddim: Server, euler: Server, tmp_path: Path) -> None:
    report = verdict(tmp_path, ddim.http, euler.http)
    assert report["passed"] is True, report["message"]


@pytest.mark.parametrize(("corrupt", "reason"), [(nan, "NotFinite"), (shuffled, "Noise")])
def test_a_corrupted_denoiser_is_recognised(
    built: Built, ddim: Server, tmp_path: Path, corrupt: Callable[[Array, Array], tuple[Array, Array]], reason: str
) -> None:
    with corrupted(built, tmp_path, corrupt) as server:
        report = verdict(tmp_path / "store", ddim.http, server.http)
    assert (report["passed"], report["reason"]) == (False, reason)
