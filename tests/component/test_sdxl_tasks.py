"""Real Triton draws with Stable Diffusion XL what diffusers draws, in every task and with additions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from diffusion_builder.stages.build import build
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import Conditioned, request_images
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.xl_checkpoints import write_xl_checkpoint
from tests.support.triton.client import psnr
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
_ENSEMBLES = (
    "generate_2_pipeline", "generate_embeddings_2_pipeline", "img2img_controlnet_ip_adapter_2_pipeline",
    "inpaint_controlnet_2_pipeline",
)  # fmt: skip
_MIN_PSNR = 35.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Conditioned:
    """One denoiser for all tasks, with a ControlNet and an IP-Adapter."""
    root = tmp_path_factory.mktemp("sdxl")
    parts.controlnet("sdxl", seed=1)(root / "net")
    parts.ip_adapter("sdxl")(root / "adapter")
    parts.image_encoder()(root / "adapter" / "image_encoder")
    model = {
        "source": {"path": str(write_xl_checkpoint(root / "checkpoint"))},
        "family": "StableDiffusionXL",
        "controlNets": [{"name": "edges", "source": {"path": str(root / "net")}}],
        "ipAdapter": {"source": {"path": str(root / "adapter")}},
    }
    pipelines = [
        {"task": "generate", "steps": [2]},
        {"task": "generate", "steps": [2], "features": ["embeddings"]},
        {"task": "img2img", "steps": [2], "features": ["controlnet", "ip_adapter"]},
        {"task": "inpaint", "steps": [2], "features": ["controlnet"]},
    ]
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), "pipelines": pipelines})
    results = build(context(root / "store"), spec, parity=False)
    return Conditioned.of(root / "store", str(results[-1]["digest"]))


@pytest.fixture(scope="module")
def server(repository: Conditioned) -> Iterator[Server]:
    with serve(repository.models) as running:
        yield running


@pytest.mark.parametrize("ensemble", _ENSEMBLES)
def test_triton_draws_what_diffusers_draws(ensemble: str, repository: Conditioned, server: Server) -> None:
    actual = request_images(server.http, ensemble, repository.requests[ensemble])
    assert psnr(actual, repository.expected[ensemble]) >= _MIN_PSNR


def test_sizes_and_second_prompts_reach_the_models(repository: Conditioned, server: Server) -> None:
    ensemble = "generate_2_pipeline"
    request = repository.requests[ensemble]
    changes = {
        "original_size": np.array([[32, 48], [512, 512]], np.int32),
        "crop_top_left": np.array([[1, 2], [3, 4]], np.int32),
        "prompt_2": np.array([[b"a blue star"], [b"a green ring"]], object),
    }
    plain = request_images(server.http, ensemble, request)
    for name, value in changes.items():
        assert not np.array_equal(request_images(server.http, ensemble, request, **{name: value}), plain), name
    with pytest.raises(InferenceServerException, match=r"original_size .* is not supported"):
        request_images(server.http, ensemble, request, original_size=np.array([[-1, 0], [1, 1]], np.int32))
