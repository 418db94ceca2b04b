"""What `build` calls for a specification, and the keys of the graphs that it exports, are pinned.

Write the files anew with UPDATE_GOLDEN=1 and read the diff.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from diffusion_builder.stages import export as export_stage
from diffusion_builder.stages import run as stages
from diffusion_builder.stages.build import build
from diffusion_builder.stages.progress import Mode, reporter
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from diffusion_contract.exports import ExportOptions
from tests.support.builder.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_builder.store import Recipe

_GOLDEN = Path(__file__).parent / "golden_builds"
_UNET = {"in_channels": 4, "out_channels": 4, "block_out_channels": [8], "cross_attention_dim": 8}
_CONTROL = {
    "_class_name": "ControlNetModel", "in_channels": 4, "block_out_channels": [8],
    "conditioning_embedding_out_channels": [8], "cross_attention_dim": 8,
}  # fmt: skip
_GENERATE = [{"task": "generate", "steps": [4]}]


def _sources(root: Path, checkpoint: Path) -> dict[str, Any]:
    """Folders of a checkpoint and of what is added to it."""
    write_json(checkpoint / "text_encoder" / "config.json", {
        "hidden_size": 8, "max_position_embeddings": 16, "num_hidden_layers": 1, "vocab_size": 9,
    })  # fmt: skip
    write_json(checkpoint / "unet" / "config.json", _UNET)
    write_json(checkpoint / "vae" / "config.json", {"latent_channels": 4, "block_out_channels": [8]})
    write_json(
        checkpoint / "scheduler" / "scheduler_config.json",
        {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"},
    )
    shutil.copytree(checkpoint / "unet", root / "unet" / "unet")
    write_json(root / "unet" / "unet" / "config.json", {"sample_size": 64})
    weights = checkpoint / "vae" / "diffusion_pytorch_model.safetensors"
    for name in ("lora", "adapter", "control"):
        (root / name).mkdir()
        shutil.copy(weights, root / name)
    write_json(root / "control" / "config.json", _CONTROL)
    shutil.copytree(checkpoint / "text_encoder", root / "adapter" / "image_encoder")
    vision = {"architectures": ["CLIPVisionModelWithProjection"]}
    write_json(root / "adapter" / "image_encoder" / "config.json", vision)
    return {name: {"source": {"path": str(root / name)}} for name in ("unet", "lora", "adapter", "control")}


_Spec = dict[str, Any]
_MATRIX: dict[str, Callable[[dict[str, Any]], tuple[_Spec, _Spec]]] = {
    "the shortest": lambda _: ({}, {"pipelines": _GENERATE}),
    "additions": lambda at: (
        {
            "loras": [{**at["lora"], "weight": 0.5}], "controlNets": [{"name": "canny", **at["control"]}],
            "ipAdapter": at["adapter"], "clipSkip": 1, "longPrompts": True, "guidanceRescale": True,
        },
        {"pipelines": [*_GENERATE, {"task": "img2img", "steps": [2, 20], "features": ["ip_adapter", "controlnet"]}]},
    ),
    "another denoiser": lambda at: (
        {"components": {"denoiser": at["unet"]}, "controlNets": [{"name": "canny", **at["control"]}]},
        {"pipelines": _GENERATE, "precision": "float16", "componentPrecision": {"vae_decoder": "float32"}},
    ),
    "an acceleration": lambda at: (
        {"loras": [at["lora"]]},
        {
            "pipelines": _GENERATE, "precision": "float16",
            "acceleration": {"deepCache": {"interval": 2, "branch": 1}, "guidance": {"stop": 0.5}},
        },
    ),
    "a gpu": lambda _: (
        {},
        {
            "pipelines": [{"task": "generate", "steps": [4, 20], "previews": [2]}],
            "targets": [{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}],
            "engines": {"optimizationLevel": 4, "workspace": 2048},
            "schedulers": [{"type": "Euler", "useKarrasSigmas": True, "name": "karras"}, {"type": "DDIM"}],
            "serving": {
                "batching": {
                    "maxQueueDelay": "5ms",
                    "preferredBatchSizes": [4, 8],
                    "takeTurns": False,
                    "priorities": True,
                }
            },
        },
    ),
}  # fmt: skip


class _Published(Exception):  # noqa: N818 - it ends a stage, nothing is wrong
    """The recipe that a stage would publish."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe


def _record(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the stages after fetch by ones that write down what they are called with."""
    calls: list[dict[str, Any]] = []

    def publish(_self: Store, recipe: Recipe, _write: object) -> None:
        raise _Published(recipe)

    def key(context: stages.StageContext, source: str, component: Any, precision: str, options: str) -> str:  # noqa: ANN401
        export_options = ExportOptions.model_validate_json(options)
        request = export_stage.ExportRequest(
            context.store.get(Kind.SOURCE, source), component, precision, export_options
        )
        with monkeypatch.context() as patch:
            patch.setattr(Store, "publish", publish)
            patch.setattr(export_stage, "version", lambda _: "1")
            with pytest.raises(_Published) as caught:
                export_stage.export(context.store, request, lambda _: None)
        return caught.value.recipe.digest

    def export(context: stages.StageContext, *arguments: Any) -> stages.Result:  # noqa: ANN401 - as the stage
        source, component, precision, options = arguments
        digest = key(context, *arguments)
        call = {"source": source, "component": str(component), "precision": str(precision), "key": digest}
        calls.append({"stage": "export", **call, "options": json.loads(options)})
        return {"stage": "export", "digest": digest, "component": str(component), "cached": False}

    def compile_(_: stages.StageContext, request: stages.CompileArguments) -> stages.Result:
        fields = {**asdict(request), "shapes": json.loads(request.shapes), "runtime": str(request.runtime)}
        calls.append({"stage": "compile", **fields})
        return {"stage": "compile", "digest": request.onnx[::-1], "cached": False}

    def assemble(_: stages.StageContext, spec: str) -> stages.Result:
        calls.append({"stage": "assemble", "spec": json.loads(spec)})
        return {"stage": "assemble", "digest": "a" * 64, "cached": False}

    for name, stage in {"export": export, "compile_": compile_, "assemble": assemble}.items():
        monkeypatch.setattr(stages, name, stage)
    return calls


def _file(name: str) -> Path:
    return _GOLDEN / f"{name.replace(' ', '-')}.yaml"


@pytest.mark.parametrize("name", _MATRIX)
def test_the_calls_of_a_build_are_as_the_golden_file_says(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, fields = _MATRIX[name](_sources(tmp_path, checkpoint))
    spec = read_local({"model": {"source": {"path": str(checkpoint)}, **model}, **fields})
    calls = _record(monkeypatch)
    with reporter(Mode.PLAIN) as progress:
        build(stages.StageContext(Store(tmp_path / "store"), progress), spec, parity=False)
    if os.environ.get("UPDATE_GOLDEN"):
        _file(name).write_text(yaml.safe_dump(calls, sort_keys=False, width=110))
    assert yaml.safe_load(_file(name).read_text()) == calls


def test_no_golden_file_of_a_build_is_left_over() -> None:
    assert {*_GOLDEN.iterdir()} == {_file(name) for name in _MATRIX}
