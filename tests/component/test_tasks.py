"""Every task with everything that can be put beside it: Triton draws what diffusers draws, and rejects in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from diffusion_builder.serving.smoke import smoke_test
from tests.support.builder.conditioned import (
    FEATURES,
    Conditioned,
    checkpoint,
    feature_sources,
    request_images,
    send_request,
)
from tests.support.builder.parts import one_thread
from tests.support.builder.repository import build_repository
from tests.support.triton.client import counts, psnr
from tests.support.triton.tritonserver import Server, end_idle, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_builder.parity.requests import TestRequest

_MIN_PSNR = 35.0
_TASKS = ("generate", "img2img", "inpaint")
_ENSEMBLES = ["_".join([task, *features, "2_pipeline"]) for task in _TASKS for features in FEATURES]
_threads = pytest.fixture(autouse=True, scope="module")(one_thread)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Conditioned:
    """One denoiser for all tasks, with a ControlNet and an IP-Adapter."""
    root = tmp_path_factory.mktemp("everything")
    folder = checkpoint(root / "checkpoint", "sd1")
    pipelines: list[dict[str, Any]] = [
        {"task": task, "steps": [2], "previews": [1], **({"features": features} if features else {})}
        for task in _TASKS
        for features in FEATURES
    ]
    pipelines[3]["steps"] = [2, 64]
    pipelines.append({"task": "generate", "steps": [4], "features": ["embeddings"], "previews": [1, 3]})
    model = {"source": {"path": str(folder)}, **feature_sources(root)}
    results = build_repository(root / "store", folder, model=model, pipelines=pipelines)
    return Conditioned.of(root / "store", str(results[-1]["digest"]))


@pytest.fixture(scope="module")
def server(everything: Conditioned) -> Iterator[Server]:
    with serve(everything.models) as running:
        yield running


@pytest.mark.parametrize("ensemble", [*_ENSEMBLES, "generate_embeddings_4_pipeline"])
def test_each_task_with_each_feature_draws_what_diffusers_draws(
    ensemble: str, everything: Conditioned, server: Server
) -> None:
    actual = request_images(server.http, ensemble, everything.requests[ensemble])
    assert psnr(actual, everything.expected[ensemble]) >= _MIN_PSNR


@pytest.mark.parametrize("feature", ["controlnet", "ip_adapter"])
@pytest.mark.parametrize("task", _TASKS)
def test_a_feature_changes_the_image(task: str, feature: str, everything: Conditioned) -> None:
    """Without this, parity would say nothing about the feature."""
    plain, featured = (everything.expected[name] for name in (f"{task}_2_pipeline", f"{task}_{feature}_2_pipeline"))
    assert psnr(plain, featured) < _MIN_PSNR


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Conditioned:
    """A UNet of 9 channels."""
    root = tmp_path_factory.mktemp("inpainting")
    folder = checkpoint(root / "checkpoint", "inpainting")
    results = build_repository(root / "store", folder, pipelines=[{"task": "inpaint", "steps": [2, 4]}])
    return Conditioned.of(root / "store", str(results[-1]["digest"]))


def test_a_unet_made_for_inpainting_draws_what_diffusers_draws(inpainting: Conditioned) -> None:
    with serve(inpainting.models) as running:
        actual = request_images(running.http, "inpaint_2_pipeline", inpainting.requests["inpaint_2_pipeline"])
    assert psnr(actual, inpainting.expected["inpaint_2_pipeline"]) >= _MIN_PSNR


def test_64_steps_with_everything_are_loaded_and_answered(everything: Conditioned, server: Server) -> None:
    request = everything.requests["generate_controlnet_ip_adapter_2_pipeline"]
    before = counts(server.http, "5_controlnet_edges").samples
    images = request_images(server.http, "generate_controlnet_ip_adapter_64_pipeline", request)
    assert images.shape == (2, 64, 64, 3)
    assert counts(server.http, "5_controlnet_edges").samples - before == 2 * 64


def test_every_ensemble_answers_its_golden_request(everything: Conditioned, server: Server) -> None:
    answered = smoke_test(server.http, everything.repository, 300.0)
    expected = {*_ENSEMBLES, "generate_embeddings_4_pipeline", "generate_controlnet_ip_adapter_64_pipeline"}
    assert set(answered) == expected


@pytest.mark.parametrize(
    ("ensemble", "calls"),
    [(name, 1) for name in _ENSEMBLES] + [("generate_embeddings_4_pipeline", calls) for calls in (1, 3)],
)
def test_a_preview_alone_costs_only_the_calls_before_it(
    ensemble: str, calls: int, everything: Conditioned, server: Server
) -> None:
    before = counts(server.http, "5_denoiser").samples
    name = f"preview_{calls}"
    file = send_request(server.http, ensemble, everything.requests[ensemble], name).as_numpy(name)
    assert file[0, 0].startswith(b"\x89PNG")
    assert counts(server.http, "5_denoiser").samples - before == 2 * calls


def test_requests_without_a_control_net_call_none(everything: Conditioned, server: Server) -> None:
    before = counts(server.http, "5_controlnet_edges"), counts(server.http, "5_zero_residuals").samples
    request_images(server.http, "img2img_2_pipeline", everything.requests["img2img_2_pipeline"])
    after = counts(server.http, "5_controlnet_edges"), counts(server.http, "5_zero_residuals").samples
    assert after == (before[0], before[1] + 2)


def _column(value: Any, dtype: Any) -> Any:  # noqa: ANN401 - arrays
    return np.array([[value]] * 2, dtype)


@pytest.mark.parametrize(
    ("ensemble", "changes", "says"),
    [
        ("inpaint_2_pipeline", {"input_image": None}, "input_image is missing"),
        ("inpaint_2_pipeline", {"mask": None}, "mask is missing"),
        ("img2img_2_pipeline", {"strength": _column(0, np.float32)}, "strength"),
        ("img2img_2_pipeline", {"strength": _column(1.5, np.float32)}, "strength"),
        ("img2img_2_pipeline", {"strength": _column(math.nan, np.float32)}, "strength"),
        ("img2img_2_pipeline", {"strength": _column(math.inf, np.float32)}, "strength"),
        ("img2img_2_pipeline", {"strength": _column(1e-6, np.float32)}, "strength"),
        ("generate_2_pipeline", {"scheduler": _column(b"Magic", object)}, "scheduler"),
        ("generate_2_pipeline", {"guidance_scale": _column(math.nan, np.float32)}, "guidance_scale"),
        ("generate_2_pipeline", {"height": _column(4096, np.int32)}, "height 4096 is not supported"),
        ("generate_2_pipeline", {"eta": _column(2, np.float32)}, "eta"),
        ("generate_controlnet_2_pipeline", {"control_image_edges": None}, "control_image_edges"),
        (
            "generate_controlnet_2_pipeline",
            {"control_image_edges": np.zeros((2, 8, 8, 4), np.uint8)}, "control_image_edges",
        ),
        ("generate_controlnet_2_pipeline", {"control_end_edges": _column(0, np.float32)}, "control_start_edges"),
        ("generate_ip_adapter_2_pipeline", {"ip_adapter_image": None}, "ip_adapter_image"),
        (
            "img2img_2_pipeline",
            {"input_image": None, "input_image_file": _column(b"\x89PNG broken", object)}, "input_image_file",
        ),
        ("generate_2_pipeline", {"output_format": _column(b"GIF", object)}, "output_format 'GIF' is not supported"),
        ("generate_2_pipeline", {"sharpen": _column(math.nan, np.float32)}, "sharpen nan is not supported"),
        (
            "generate_2_pipeline",
            {"width": _column(128, np.int32), "upscale_height": _column(4096, np.int32)}, "upscaling gives 8192 x 4096",
        ),
        ("img2img_2_pipeline", {"color_match": _column(2, np.float32)}, "color_match 2 is not supported"),
        ("img2img_2_pipeline", {"blend_mask_file": _column(b"GIF", object)}, "blend_mask_file is not a supported"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_rejected_in_words(
    ensemble: str, changes: dict[str, Any], says: str, everything: Conditioned, server: Server
) -> None:
    request, before = everything.requests[ensemble], counts(server.http, "5_denoiser")
    with pytest.raises(InferenceServerException) as caught:
        send_request(server.http, ensemble, request, **changes)
    assert says in str(caught.value)
    assert counts(server.http, "5_denoiser") == before
    assert request_images(server.http, ensemble, request).shape == (2, 64, 64, 3)


def _invalid_changes(request: TestRequest) -> Iterator[dict[str, Any]]:
    """Changes that make a request one to be rejected: numbers, formats and masks that are none, an image left out."""
    yield {"guidance_scale": _column(math.nan, np.float32)}
    yield {"output_format": _column(b"GIF", object)}
    if "input_image" in request.tensors():
        yield {"blend_mask_file": _column(b"GIF", object)}
    yield from ({name: None} for name in request.tensors() if "image" in name or name == "mask")


def test_rejected_requests_are_in_flight_in_no_ensemble(everything: Conditioned) -> None:
    """All outputs at once, previews among them, and a preview alone."""
    with serve(everything.models) as own:
        for ensemble, request in everything.requests.items():
            for changes in _invalid_changes(request):
                for only in (None, "preview_1"):
                    with pytest.raises(InferenceServerException):
                        send_request(own.http, ensemble, request, only, **changes)
        end_idle(own)
