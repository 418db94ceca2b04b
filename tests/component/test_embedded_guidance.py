"""UNets that read guidance as an embedding draw what diffusers draws with them, in every task and with additions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline

from diffusion_builder.components import embedded_guidance
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.stages.build import build
from diffusion_contract.documents import read_local
from diffusion_contract.enums import Component
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint, feature_sources
from tests.support.builder.loading import load, run, unet_of, written
from tests.support.builder.repository import SHAPES, context

if TYPE_CHECKING:
    from pathlib import Path

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
# The library has no types.
_Pipeline: Any = LatentConsistencyModelPipeline


def _embedding(guidance: torch.Tensor, width: int) -> torch.Tensor:
    embedding: torch.Tensor = _Pipeline.get_guidance_scale_embedding(None, guidance[:, 0] - 1, width)
    return embedding


@pytest.mark.parametrize("width", [4, 16, 17, 256])
def test_the_embedding_is_that_of_diffusers(width: int) -> None:
    guidance = torch.tensor([[1.0], [1.5], [8.0]])
    torch.testing.assert_close(
        embedded_guidance.embed(guidance, width), _embedding(guidance, width), rtol=1e-3, atol=2e-3
    )


@torch.no_grad()
def test_the_unet_is_called_with_positive_prompts_alone(tmp_path: Path) -> None:
    folders = written(tmp_path, {"unet": parts.unet("lcm")})
    inputs, output = run(Component.DENOISER, load(Component.DENOISER, folders))
    raw = unet_of(folders["unet"])(
        inputs["model_input"], inputs["timestep"][:, 0], inputs["text_embeddings"][:, 1],
        timestep_cond=_embedding(inputs["guidance"], 16),
    ).sample  # fmt: skip
    torch.testing.assert_close(output, raw, rtol=1e-3, atol=1e-3)


def test_every_task_with_additions_draws_what_diffusers_draws(store: Path, tmp_path: Path) -> None:
    features = ["controlnet", "ip_adapter"]
    folder = checkpoint(tmp_path / "checkpoint", "lcm")
    spec = {
        "model": {"source": {"path": str(folder)}, **feature_sources(tmp_path)},
        "scheduler": {"type": "LCM"},
        "pipelines": [
            {"task": "generate", "steps": [1]},
            {"task": "generate", "steps": [4], "features": features},
            {"task": "img2img", "steps": [2], "features": ["ip_adapter"]},
            {"task": "inpaint", "steps": [2]},
        ],
        "shapes": json.loads(SHAPES),
    }
    report = build(context(store), read_local(spec))[-1]
    assert len(report["ensembles"]) == len(spec["pipelines"])
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0


def test_what_diffusers_computes_without_the_embedding_is_not_compared(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", "lcm")
    spec = {
        "model": {"source": {"path": str(folder)}, **feature_sources(tmp_path)},
        "pipelines": [{"task": "img2img", "steps": [2], "features": ["controlnet"]}],
        "shapes": json.loads(SHAPES),
    }
    with pytest.raises(BadInputError, match=r"img2img with controlnet: .*time_cond_proj_dim") as caught:
        build(context(tmp_path / "store"), read_local(spec))
    assert caught.value.reason is Reason.PARITY_FAILED
    assert not list((tmp_path / "store" / "onnx").glob("*"))


def test_guidance_rescale_and_controlnets_with_such_an_embedding_are_refused(tmp_path: Path) -> None:
    folders = written(tmp_path, {"unet": parts.unet("lcm"), "controlnet": parts.controlnet()})
    with pytest.raises(BadInputError, match="leave guidanceRescale out") as caught:
        load(Component.DENOISER, folders, guidance_rescale=True)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    config = json.loads((folders["controlnet"] / "config.json").read_text()) | {"time_cond_proj_dim": 16}
    (folders["controlnet"] / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInputError, match="ControlNets with that input are not supported") as caught:
        load(Component.CONTROLNET, folders, control_net="0" * 64)
    assert caught.value.reason is Reason.UNSUPPORTED_COMPONENT
