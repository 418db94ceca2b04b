"""Schedulers with a history draw what diffusers draws, through the step engine that all of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.builder.parts import one_thread
from tests.support.builder.reference import Reference
from tests.support.builder.repository import TIERS, Built, build_repository
from tests.support.triton.client import ImageRequest, counts, psnr, send
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from pathlib import Path

_threads = pytest.fixture(autouse=True, scope="module")(one_thread)
_MIN_PSNR = 35.0
# Denoiser calls of one image per tier, as diffusers makes them.
_CALLS = {"DPMSolverMultistep": (4, 20), "PNDM": (5, 21), "UniPCMultistep": (4, 20)}


def _repository(store: Path, checkpoint: Path, scheduler: str) -> Built:
    results = build_repository(store, checkpoint, scheduler)
    return Built(store, str(results[-1]["digest"]))


def _step_engine(built: Built) -> Path:
    return (built.models / "6_scheduler_step" / "1" / "model.onnx").resolve()


@pytest.mark.parametrize("scheduler", _CALLS)
def test_image_equals_diffusers_and_no_engine_is_built_for_it(
    scheduler: str, store: Path, built: Built, checkpoint: Path
) -> None:
    repository = _repository(store, checkpoint, scheduler)
    assert _step_engine(repository) == _step_engine(built)
    reference = Reference(checkpoint, scheduler)
    with serve(repository.models) as server:
        for steps, calls in zip(TIERS, _CALLS[scheduler], strict=True):
            request = ImageRequest(steps, ["a red circle on a blue background"], seed=[11], guidance_scale=[5.0])
            before = counts(server.http, "5_denoiser")
            image = send(server.http, request)
            assert counts(server.http, "5_denoiser").samples - before.samples == calls
            assert psnr(image, reference.draw(request)) >= _MIN_PSNR
