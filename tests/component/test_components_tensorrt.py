"""TensorRT takes the graphs with everything inside: packed residuals, decoupled attention, half precision."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from diffusion_builder import stages
from diffusion_builder.contract import Component
from diffusion_builder.store import Store
from tests.component import parts, tensorrt_rtx
from tests.component.conftest import SHAPES, context
from tests.component.tensorrt_conformance import Workshop

if TYPE_CHECKING:
    from pathlib import Path

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)
_ADAPTER = {"ip_adapter": parts.ip_adapter(), "image_encoder": parts.image_encoder()}


@pytest.mark.parametrize(
    ("component", "precision", "added", "options"),
    [
        (Component.DENOISER, "float32", {"ipAdapter": _ADAPTER}, {"controlNets": 2, "guidanceRescale": True}),
        (Component.CONTROLNET, "float16", {"controlNet": {"controlnet": parts.controlnet()}}, {}),
        (Component.TEXT_ENCODER, "float32", {}, {"longPrompts": True}),
        (Component.VAE_ENCODER, "bfloat16", {}, {}),
    ],
)
def test_tensorrt_compiles(
    tmp_path: Path,
    component: Component,
    precision: str,
    added: dict[str, dict[str, parts.Write]],
    options: dict[str, object],
) -> None:
    store = Store(tmp_path / "store")
    base = {"unet": parts.unet(), "vae": parts.vae(), "text_encoder": parts.text_encoder()}
    source = parts.source(store, base, tmp_path / "base")
    more = {name: parts.source(store, wanted, tmp_path / name) for name, wanted in added.items()}
    graph = stages.export(context(store.root), source, component, precision, json.dumps(options | more))
    workshop = Workshop(store.root, tensorrt_rtx.write_programs(tmp_path))
    plan = workshop.compile_plan(str(graph["digest"]), SHAPES)
    assert plan["runtime"] == "tensorrt"
    assert (workshop.engine(plan) / "model.plan").stat().st_size > 0
