"""Every task and feature of a build draws what diffusers draws, and the stage parity reports it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.stages.build import build
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint, feature_sources
from tests.support.builder.repository import SHAPES, context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FEATURES = ["controlnet", "ip_adapter"]
_CASES: dict[str, Mapping[str, Any]] = {
    "additions": {
        "pipelines": [
            {"task": "generate", "steps": [2, 3]},
            {"task": "generate", "steps": [2], "features": ["embeddings"]},
            {"task": "img2img", "steps": [2], "features": _FEATURES},
            {"task": "inpaint", "steps": [2], "features": _FEATURES},
        ],
        "schedulers": [{"type": "DPMSolverMultistep"}, {"type": "Heun"}],
    },
    "safety checker": {"pipelines": [{"task": "generate", "steps": [2]}]},
    "half precision": {
        "pipelines": [{"task": "generate", "steps": [2]}, {"task": "img2img", "steps": [2]}],
        "precision": "float16",
        "componentPrecision": {"vae_decoder": "float32"},
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield from parts.one_thread()


def _additions(folder: Path) -> dict[str, Any]:
    parts.safety_checker()(folder / "checker")
    return {
        "additions": feature_sources(folder),
        "safety checker": {"safetyChecker": {"source": {"path": str(folder / "checker")}}},
        "half precision": {"clipSkip": 1, "longPrompts": True},
    }


@pytest.mark.parametrize("name", _CASES)
def test_a_repository_draws_what_diffusers_draws(store: Path, tmp_path: Path, name: str) -> None:
    base = checkpoint(tmp_path / "base", "sd1")
    model = {"source": {"path": str(base)}, **_additions(tmp_path)[name]}
    case = _CASES[name]
    spec = read_local({"model": model, "shapes": json.loads(SHAPES), **case})
    report = build(context(store), spec)[-1]
    assert report["stage"] == "parity"
    per_scheduler = len(case.get("schedulers", [0]))
    assert len(report["ensembles"]) == per_scheduler * len(case["pipelines"])
    assert report["worstPSNR"] >= report["minPSNR"] == (30.0 if "precision" in case else 35.0)
