"""`build` makes a repository of each of these checkpoints with all that applies, and it draws as diffusers does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.stages.build import build
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint
from tests.support.builder.repository import SHAPES, context
from tests.support.builder.shapes import SHAPES_OF, Shape, lora
from tests.support.builder.xl_checkpoints import write_xl_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)
# What models of the family predict; a checkpoint of one kind is as good as another here.
_PREDICTIONS = {"SD 2.x": "v_prediction", "one level": "sample"}


def _has_adapter(shape: Shape) -> bool:
    """Diffusers' own loader of IP-Adapters, which the check compares with, fails with layers that differ by block."""
    return shape.adapter and not isinstance(parts.UNETS[shape.unet].get("layers_per_block"), list)


def _checkpoint(folder: Path, shape: Shape) -> Path:
    if shape.is_xl:
        return write_xl_checkpoint(folder, shape.unet)
    return checkpoint(folder, shape.unet, parts.vae(shape.latent, shape.levels), shape.text_width)


def _model(folder: Path, shape: Shape) -> dict[str, Any]:
    lora(shape)(folder / "lora")
    model: dict[str, Any] = {
        "source": {"path": str(_checkpoint(folder / "checkpoint", shape))},
        "loras": [{"source": {"path": str(folder / "lora")}, "weight": 0.01}],
        "clipSkip": 1,
        "guidanceRescale": True,
        **({"family": str(shape.family)} if shape.is_xl else {"longPrompts": True}),
    }
    if shape.control:
        for seed, name in enumerate(("edges", "depth")):
            parts.controlnet(shape.control, seed, shape.levels)(folder / name)
        model["controlNets"] = [{"name": name, "source": {"path": str(folder / name)}} for name in ("edges", "depth")]
    if _has_adapter(shape):
        parts.ip_adapter(shape.unet, plus=shape.plus)(folder / "adapter")
        parts.image_encoder()(folder / "adapter" / "image_encoder")
        model["ipAdapter"] = {"source": {"path": str(folder / "adapter")}}
    return model


def _pipelines(shape: Shape) -> list[dict[str, Any]]:
    applies = {"controlnet": bool(shape.control), "ip_adapter": _has_adapter(shape)}
    features = [name for name, there in applies.items() if there]
    is_inpainting = shape.unet.endswith("inpainting")
    tasks = ["inpaint"] if is_inpainting else ["generate", "img2img"]
    # Diffusers inpaints with 4 or 9 channels only.
    tasks += ["inpaint"] if not is_inpainting and shape.latent == 4 else []
    return [{"task": task, "steps": [2], **({"features": features} if features else {})} for task in tasks]


@pytest.mark.parametrize("name", SHAPES_OF)
def test_a_build_with_all_features_draws_what_diffusers_draws(store: Path, tmp_path: Path, name: str) -> None:
    """All in one store, as pipelines share a claim: none is compared with a part of another."""
    shape = SHAPES_OF[name]
    spec = {
        "model": _model(tmp_path, shape),
        "scheduler": {"type": "DDIM", "predictionType": _PREDICTIONS.get(name, "epsilon")},
        "pipelines": _pipelines(shape),
        "shapes": json.loads(SHAPES),
    }
    report = build(context(store), read_local(spec))[-1]
    assert (report["stage"], report["precision"]) == ("parity", "float32")
    assert len(report["ensembles"]) == len(spec["pipelines"])
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0
