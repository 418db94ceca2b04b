"""What is wrong with a build is said before anything is exported: one block, exit 64 or 74, nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_builder.cli import main as cli
from diffusion_builder.errors import BadInputError, ExitCode, Reason
from diffusion_builder.stages import run as stages
from diffusion_builder.store import errors
from diffusion_contract.documents import API_VERSION
from tests.support.builder.files import write_json

_WIDTH = 8
_TEXT = {"hidden_size": _WIDTH, "max_position_embeddings": 16, "num_hidden_layers": 1, "vocab_size": 9}
_UNET = {"in_channels": 4, "out_channels": 4, "block_out_channels": [8], "cross_attention_dim": _WIDTH}
_CONTROL = {
    "_class_name": "ControlNetModel", "in_channels": 4, "block_out_channels": [8],
    "conditioning_embedding_out_channels": [8], "cross_attention_dim": _WIDTH + 1,
}  # fmt: skip


@pytest.fixture
def sound(checkpoint: Path) -> Path:
    """A checkpoint whose configurations are complete."""
    write_json(checkpoint / "text_encoder" / "config.json", _TEXT)
    write_json(checkpoint / "unet" / "config.json", _UNET)
    write_json(checkpoint / "vae" / "config.json", {"latent_channels": 4, "block_out_channels": [8]})
    write_json(
        checkpoint / "scheduler" / "scheduler_config.json",
        {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"},
    )
    return checkpoint


def _spec(checkpoint: Path, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    body: dict[str, Any] = {
        "model": {"source": {"path": str(checkpoint)}},
        "pipelines": [{"task": "generate", "steps": [4]}],
        **{name: value for name, value in changes.items() if name != "model"},
    }
    body["model"] |= changes.get("model", {})
    return body


def _run(tmp_path: Path, *arguments: str) -> tuple[int, Mapping[str, Any]]:
    result = tmp_path / "result.json"
    try:
        cli.main(["build", "--store", str(tmp_path / "store"), "--result", str(result), *arguments])
    except SystemExit as end:
        return int(end.code or 0), json.loads(result.read_text())
    return 0, json.loads(result.read_text())


@pytest.fixture
def nothing_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object) -> stages.Result:
        raise AssertionError("an export was started")

    monkeypatch.setattr(stages, "export", export)


def _width(tmp_path: Path) -> dict[str, Any]:
    write_json(tmp_path / "control" / "config.json", _CONTROL)
    unet = tmp_path / "checkpoint" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(unet, tmp_path / "control")
    return {"model": {"controlNets": [{"name": "canny", "source": {"path": str(tmp_path / "control")}}]}}


def _other_unet(tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(tmp_path / "checkpoint" / "unet", tmp_path / "other" / "unet")
    write_json(tmp_path / "other" / "unet" / "config.json", {"cross_attention_dim": 99})
    return {"model": {"components": {"denoiser": {"source": {"path": str(tmp_path / "other")}}}}}


def _adapter(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "adapter").mkdir()
    shutil.copy(tmp_path / "checkpoint" / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "adapter")
    return {"model": {"ipAdapter": {"source": {"path": str(tmp_path / "adapter")}}}}


_GPU = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
_Case = tuple[Mapping[str, Any] | Callable[[Path], dict[str, Any]], Reason, str]
_SPECS: dict[str, _Case] = {
    "typo": ({"modell": {}}, Reason.INVALID_SPEC, "modell: Extra inputs are not permitted"),
    "two sources": (
        {"model": {"source": {"path": "x", "digest": "0" * 64}}}, Reason.INVALID_SPEC,
        "model.source: source needs exactly one",
    ),
    "no such folder": ({"model": {"source": {"path": "/nowhere"}}}, Reason.SOURCE_NOT_FOUND, "/nowhere"),
    "no such artifact": ({"model": {"source": {"digest": "0" * 64}}}, Reason.ARTIFACT_NOT_FOUND, "sources/000"),
    "a branch": (
        {"model": {"source": {"huggingFace": {"repo": "a/b", "revision": "main"}}}}, Reason.INVALID_SPEC, "40",
    ),
    "no SHA-256": (
        {"model": {"source": {"archive": {"url": "http://x/y.tar", "sha256": "1"}}}}, Reason.INVALID_SPEC, "sha256",
    ),
    "unknown scheduler": ({"scheduler": {"type": "Magic"}}, Reason.INVALID_SPEC, "scheduler.type: Input should be"),
    "too many calls": (
        {"scheduler": {"type": "Heun"}, "pipelines": [{"task": "generate", "steps": [64]}]},
        Reason.INVALID_SPEC, "pipelines: Heun calls the denoiser twice a step, 64 times at most",
    ),
    "min > max": (
        {"shapes": {side: {"min": 128, "opt": 64, "max": 64} for side in ("batch", "height", "width")}},
        Reason.INVALID_SPEC, "shapes.batch: must be ordered: min <= opt <= max",
    ),
    "not divisible": (
        {"shapes": {side: {"min": 64, "opt": 64, "max": 100} for side in ("batch", "height", "width")}},
        Reason.INVALID_SPEC, "shapes.height.max: must be a multiple of 8",
    ),
    "steps": ({"pipelines": [{"task": "generate", "steps": [0]}]}, Reason.INVALID_SPEC, "pipelines[0].steps[0]"),
    "no pipelines": ({"pipelines": []}, Reason.INVALID_SPEC, "pipelines"),
    "unknown precision": ({"precision": "float8"}, Reason.INVALID_SPEC, "precision: Input should be 'float32'"),
    "precision of nothing": ({"componentPrecision": {"unet": "float16"}}, Reason.INVALID_SPEC, "componentPrecision"),
    "bfloat16 on a CPU": ({"precision": "bfloat16"}, Reason.INVALID_SPEC, "precision: ONNX Runtime has no bfloat16"),
    "TensorRT on a CPU": (
        {"engines": {"runtime": "tensorrt"}}, Reason.INVALID_SPEC, "engines.runtime: runtime tensorrt needs a gpu",
    ),
    "ONNX Runtime on a GPU": (
        {"engines": {"runtime": "onnxruntime"}, "targets": [_GPU]}, Reason.INVALID_SPEC, "onnxruntime serves on CPUs",
    ),
    "a level that TensorRT lacks": ({"engines": {"optimizationLevel": 6}}, Reason.INVALID_SPEC, "optimizationLevel"),
    "no product": (
        {"targets": [{"name": "x", "gpu": {"product": "L4!"}}]}, Reason.INVALID_SPEC, "targets[0].gpu.product",
    ),
    "which target": (
        {"targets": [_GPU, {"name": "l40", "gpu": {"product": "NVIDIA-L40"}}]}, Reason.INVALID_SPEC, "--target",
    ),
    "one target twice": ({"targets": [_GPU, _GPU]}, Reason.INVALID_SPEC, "targets: l4 more than once"),
    "scheduler and schedulers": (
        {"scheduler": {"type": "DDIM"}, "schedulers": [{"type": "Euler"}]}, Reason.INVALID_SPEC,
        "use either scheduler or schedulers",
    ),
    "one scheduler twice": (
        {"schedulers": [{"type": "Euler"}, {"type": "Euler"}]}, Reason.INVALID_SPEC,
        "schedulers: requests choose a scheduler by name",
    ),
    "one task twice": (
        {"pipelines": [{"task": "img2img", "steps": [4]}] * 2}, Reason.INVALID_SPEC,
        "pipelines: each task may be listed once",
    ),
    "a feature without a ControlNet": (
        {"pipelines": [{"task": "img2img", "steps": [4], "features": ["controlnet"]}]}, Reason.INVALID_SPEC,
        "pipelines: feature controlnet needs a ControlNet",
    ),
    "preferred batch": (
        {"serving": {"batching": {"preferredBatchSizes": [99]}}}, Reason.INVALID_SPEC,
        "serving.batching.preferredBatchSizes: preferred batch sizes must not be larger",
    ),
    "a delay without unit": (
        {"serving": {"batching": {"maxQueueDelay": "5"}}}, Reason.INVALID_SPEC, "serving.batching.maxQueueDelay",
    ),
    "one ControlNet twice": (
        {"model": {"controlNets": [{"name": "a", "source": {"path": "x"}}] * 2}}, Reason.INVALID_SPEC,
        "model.controlNets: a more than once",
    ),
    "a LoRA that is not there": (
        {"model": {"loras": [{"source": {"path": "/nowhere"}}]}}, Reason.SOURCE_NOT_FOUND, "/nowhere",
    ),
    "a ControlNet of another width": (_width, Reason.COMPONENT_MISMATCH, "controlnet_canny reads texts with 9"),
    "a UNet of another width": (_other_unet, Reason.COMPONENT_MISMATCH, "unet reads texts with 99"),
    "an IP-Adapter without image encoder": (_adapter, Reason.MISSING_COMPONENT, "image_encoder"),
}  # fmt: skip


def _expect(
    outcome: tuple[int, Mapping[str, Any]], capsys: pytest.CaptureFixture[str], reason: Reason, says: str
) -> None:
    code, body = outcome
    assert (code, body["error"]["reason"]) == (ExitCode.BAD_INPUT, reason), body
    assert says in body["error"]["message"]
    stderr = capsys.readouterr().err
    assert stderr.count("error: ") == 1
    assert "Traceback" not in stderr


def _nothing_made(store: Path) -> None:
    """Sources may be there, which cost little; no half artifact, no graph."""
    assert not [path for path in store.glob("*/.tmp-*")]  # noqa: C416 - the list is shown when it is not empty
    assert not [path.name for path in store.glob("*") if path.name not in ("sources", "uses")]


@pytest.mark.usefixtures("nothing_expensive")
@pytest.mark.parametrize("name", _SPECS)
def test_a_wrong_spec_costs_no_export(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    changes, reason, says = _SPECS[name]
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(_spec(sound, **(changes(tmp_path) if callable(changes) else changes))))
    _expect(_run(tmp_path, "--spec", str(file)), capsys, reason, says)
    _nothing_made(tmp_path / "store")


def test_the_sound_spec_gets_as_far_as_its_first_export(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, the tests above would prove nothing."""

    def export(*_: object) -> stages.Result:
        raise BadInputError(Reason.EXPORT_FAILED, "here")

    monkeypatch.setattr(stages, "export", export)
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(_spec(sound)))
    assert _run(tmp_path, "--spec", str(file))[1]["error"]["reason"] == Reason.EXPORT_FAILED
    assert _run(tmp_path, "--path", str(sound), "--steps", "4")[1]["error"]["reason"] == Reason.EXPORT_FAILED


@pytest.mark.usefixtures("nothing_expensive")
@pytest.mark.parametrize(
    ("arguments", "reason", "says"),
    [
        ([], Reason.INVALID_ARGUMENT, "give --spec FILE, or a checkpoint"),
        (["--spec", "/nowhere.yaml"], Reason.INVALID_SPEC, "/nowhere.yaml cannot be read"),
        (["--spec", "x.yaml", "--steps", "4"], Reason.INVALID_ARGUMENT, "--steps: with --spec"),
        (["--path", "x", "--steps", "4,x"], Reason.INVALID_ARGUMENT, "separated by commas"),
        (["--path", "x", "--steps", "4", "--pipelines", "[]"], Reason.INVALID_ARGUMENT, "either --steps"),
        (["--path", "x", "--pipelines", "{"], Reason.INVALID_SPEC, "--pipelines is not JSON"),
        (["--path", "x", "--shapes", "{"], Reason.INVALID_SPEC, "--shapes is not JSON"),
        (["--path", "x", "--options", "{"], Reason.INVALID_SPEC, "--options is not JSON"),
        (["--path", "x", "--options", "[]"], Reason.INVALID_SPEC, "--options must be a JSON object"),
        (["--path", "x", "--options", '{"dragons": 1}'], Reason.INVALID_SPEC, "model.dragons"),
        (["--path", "x", "--component-precision", "unet"], Reason.INVALID_ARGUMENT, "NAME=PRECISION"),
        (["--path", "x", "--component-precision", "unet=float16"], Reason.INVALID_SPEC, "componentPrecision"),
        (["--path", "x", "--repo", "a/b", "--revision", "0" * 40], Reason.INVALID_SPEC, "exactly one of"),
        (["--repo", "a/b"], Reason.INVALID_SPEC, "model.source.huggingFace.revision: Field required"),
        (["--path", "x", "--target", "NVIDIA L4"], Reason.INVALID_SPEC, "targets[0].gpu.product"),
        (["--path", "x", "--runtime", "magic"], Reason.INVALID_SPEC, "engines.runtime"),
    ],
)
def test_wrong_options_cost_no_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: Reason, says: str
) -> None:
    _expect(_run(tmp_path, *arguments), capsys, reason, says)
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("nothing_expensive")
@pytest.mark.parametrize("text", ["a: [", "kind: Pod\nspec: {}\n", "- 1\n", "", "\x00"])
def test_a_file_that_is_no_spec_is_rejected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    code, body = _run(tmp_path, "--spec", str(file))
    assert (code, body["error"]["reason"]) == (ExitCode.BAD_INPUT, Reason.INVALID_SPEC)
    assert str(file) in body["error"]["message"]


@pytest.mark.usefixtures("nothing_expensive")
@pytest.mark.parametrize(
    ("trouble_with", "reason"),
    [(errno.EROFS, Reason.STORE_READ_ONLY), (errno.EIO, Reason.STORE_UNAVAILABLE), (0, Reason.STORE_FULL)],
)
def test_trouble_with_the_store_is_exit_code_74(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble_with: int, reason: Reason
) -> None:
    mkdir = Path.mkdir

    def fail(path: Path, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - as the method
        if path.is_relative_to(tmp_path / "store"):
            raise OSError(trouble_with, "trouble")
        mkdir(path, *arguments, **keywords)

    if trouble_with:
        monkeypatch.setattr(Path, "mkdir", fail)
    else:
        monkeypatch.setattr(errors, "free", lambda _root: 1)
    code, body = _run(tmp_path, "--path", str(sound))
    assert (code, body["error"]["reason"]) == (ExitCode.STORE, reason)
    _nothing_made(tmp_path / "store")


def test_a_whole_custom_resource_is_read_with_the_defaults_and_the_sku_of_the_operator(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    target = {
        "name": "slice", "replicas": 3, "nodeSelector": {"x": "y"},
        "gpu": {"product": "NVIDIA-A100-SXM4-80GB", "resourceName": "nvidia.com/mig-1g.10gb"},
    }  # fmt: skip
    source = {"huggingFace": {"repo": "demo/shapes", "revision": "0" * 40}}
    spec = {"model": {"source": source}, "storage": {"size": "1Gi"}, "suspend": True, "targets": [target]}
    head = {"apiVersion": API_VERSION, "kind": "DiffusionPipeline", "metadata": {"name": "shapes"}}
    file.write_text(yaml.safe_dump({**head, "spec": {**spec, "shapes": {"batch": {"max": 4}}}}))
    _, body = _run(tmp_path, "--spec", str(file), "--dry-run")
    assert body["skus"] == ["NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"]
    assert body["engines"] == ["text_encoder", "denoiser", "scheduler_step", "vae_decoder"]


@pytest.mark.usefixtures("nothing_expensive")
def test_a_claim_of_kubernetes_is_valid_and_cannot_be_built_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump({"model": {"source": {"persistentVolumeClaim": {"claimName": "x"}}}}))
    assert _run(tmp_path, "--spec", str(file), "--dry-run")[0] == ExitCode.OK
    capsys.readouterr()
    _expect(_run(tmp_path, "--spec", str(file)), capsys, Reason.INVALID_SPEC, "give path")
