"""Parts that do not belong together: one readable block, exit code 64, and nothing half-written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

from diffusion_builder.cli import main as cli
from diffusion_builder.errors import ExitCode, Reason
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Store
from diffusion_contract.enums import Component
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint
from tests.support.builder.repository import SHAPES, build_repository, context
from tests.support.tensorrt import tensorrt_rtx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)
_BASE = {"unet": parts.unet(), "text_encoder": parts.text_encoder(), "vae": parts.vae()}
_OTHER_LORA = parts.files(
    {
        "lora_unet_mid_block_conv.lora_down.weight": torch.ones(1, 8),
        "lora_unet_mid_block_conv.lora_up.weight": torch.ones(8, 1),
    }
)


def _with_setting(entry: str, setting: object) -> parts.Write:
    """A UNet whose configuration has another setting."""

    def write(folder: Path) -> None:
        parts.unet()(folder)
        config = json.loads((folder / "config.json").read_text())
        config[entry] = setting
        (folder / "config.json").write_text(json.dumps(config))

    return write


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--progress", "plain", *arguments])
    return int(caught.value.code or 0)


def _check(code: int, capsys: pytest.CaptureFixture[str], reason: Reason, says: str) -> None:
    stderr = capsys.readouterr().err
    assert code == ExitCode.BAD_INPUT
    block = stderr[stderr.index("error: ") :].splitlines()
    assert block[0] == f"error: {reason}"
    assert says in block[1]
    assert len(block) == 2
    assert "Traceback" not in stderr


@dataclass(frozen=True)
class Export:
    """What is exported from which parts, and what is wrong with it."""

    reason: Reason
    says: str
    base: Mapping[str, parts.Write] = field(default_factory=lambda: _BASE)
    component: Component = Component.DENOISER
    option: str = ""
    extra: Mapping[str, parts.Write] = field(default_factory=dict)


_EXPORTS = {
    "configuration": Export(Reason.INVALID_CONFIG, "in_channels", {"unet": _with_setting("in_channels", "four")}),
    "missing part": Export(Reason.MISSING_COMPONENT, "has no unet", {"vae": parts.vae()}),
    "ControlNet": Export(
        Reason.COMPONENT_MISMATCH, "cross_attention_dim is 40, the UNet has 32", component=Component.CONTROLNET,
        option="controlNet", extra={"controlnet": parts.controlnet("sd2")},
    ),
    "LoRA": Export(
        Reason.COMPONENT_MISMATCH, "for another base model", option="loras", extra={"lora": _OTHER_LORA}
    ),
    "IP-Adapter": Export(
        Reason.MISSING_COMPONENT, "without its image encoder", option="ipAdapter",
        extra={"ip_adapter": parts.ip_adapter()},
    ),
    "text encoder": Export(
        Reason.COMPONENT_MISMATCH, "text_width 32, the checkpoint around it has 40",
        {**_BASE, "text_encoder": parts.text_encoder(40)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", _EXPORTS.values(), ids=_EXPORTS.keys())
def test_parts_that_do_not_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: Export) -> None:
    store = Store(tmp_path / "store")
    options: dict[str, object] = {}
    if wrong.option:
        digest = parts.source(store, wrong.extra, tmp_path / "extra")
        options = {wrong.option: [{"source": digest}] if wrong.option == "loras" else digest}
    code = _run(
        "export", "--store", str(store.root), "--source", parts.source(store, wrong.base, tmp_path / "base"),
        "--component", str(wrong.component), "--options", json.dumps(options),
    )  # fmt: skip
    _check(code, capsys, wrong.reason, wrong.says)
    assert not list((store.root / "onnx").glob("*"))
    assert not list((store.root / "onnx").glob(".*"))


def _wide(folder: Path) -> Path:
    """A checkpoint whose UNet reads latents of 8 channels, and whose levels have layers of different numbers."""
    return checkpoint(folder, "wide-latent", parts.vae(8))


_ADAPTER = {"controlNets": [], "ipAdapter": {"source": {"path": "ADAPTER"}}}


@pytest.mark.parametrize(
    ("pipeline", "model", "says"),
    [
        ({"task": "inpaint", "steps": [2]}, {}, "for inpaint: its pipelines take a UNet of 4 or 9 input channels"),
        (
            {"task": "generate", "steps": [2], "features": ["ip_adapter"]}, _ADAPTER,
            "for ip_adapter: it cannot weigh an IP-Adapter where layers_per_block",
        ),
    ],
)  # fmt: skip
def test_what_diffusers_has_no_pipeline_for_is_said_before_anything_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pipeline: dict[str, Any], model: dict[str, Any], says: str
) -> None:
    parts.ip_adapter("wide-latent")(tmp_path / "adapter")
    parts.image_encoder()(tmp_path / "adapter" / "image_encoder")
    options = json.dumps(model).replace("ADAPTER", str(tmp_path / "adapter"))
    code = _run(
        "build", "--store", str(tmp_path / "store"), "--path", str(_wide(tmp_path / "wide")),
        "--pipelines", json.dumps([pipeline]), "--options", options,
    )  # fmt: skip
    _check(code, capsys, Reason.PARITY_FAILED, says)
    assert not list((tmp_path / "store" / "onnx").glob("*"))


def test_a_repository_that_diffusers_has_no_pipeline_for_is_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    digest = build_repository(store, _wide(tmp_path / "wide"), pipelines=[{"task": "inpaint", "steps": [2]}])[-1][
        "digest"
    ]
    code = _run("parity", "--store", str(store), "--repository", str(digest))
    _check(code, capsys, Reason.PARITY_FAILED, "build with --no-parity")


_TENSORRT = ("--runtime", "tensorrt", "--sku", "NVIDIA-L4")


def _shapes(**changes: dict[str, int]) -> str:
    return json.dumps({**json.loads(SHAPES), **changes})


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A decoder of 32 pixels per latent."""
    folder = tmp_path_factory.mktemp("graph")
    store = Store(folder / "store")
    source = parts.source(store, {"vae": parts.vae(levels=6)}, folder / "source")
    return store, str(stages.export(context(store.root), source, Component.VAE_DECODER, "float32")["digest"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            (*_TENSORRT, "--shapes", _shapes(batch={"min": 4, "opt": 2, "max": 8})),
            (Reason.INVALID_SPEC, "must be ordered: min <= opt <= max"),
        ),
        (
            (*_TENSORRT, "--shapes", _shapes(height={"min": 64, "opt": 72, "max": 128})),
            (Reason.INVALID_SPEC, "must be multiples of 32"),
        ),
        (
            (*_TENSORRT, "--shapes", _shapes(width={"min": 64, "opt": 65, "max": 128})),
            (Reason.INVALID_SPEC, "must be a multiple of 8 pixels"),
        ),
        (("--runtime", "tensorrt", "--sku", "NVIDIA L4"), (Reason.INVALID_ARGUMENT, "nvidia.com/gpu.product")),
        (("--runtime", "tensorrt", "--sku", "NVIDIA-H200"), (Reason.WRONG_GPU, "this machine has NVIDIA-L4")),
        (("--runtime", "openvino"), (Reason.INVALID_ARGUMENT, "supported are runtime onnxruntime")),
        ((*_TENSORRT, "--optimization-level", "9"), (Reason.INVALID_ARGUMENT, "optimization level 9")),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled(
    graph: tuple[Store, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], expected: tuple[Reason, str],
) -> None:  # fmt: skip
    store, digest = graph
    programs = tensorrt_rtx.write_programs(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    code = _run("compile", "--store", str(store.root), "--onnx", digest, *arguments)
    _check(code, capsys, *expected)
    assert not list((store.root / "engines").glob("*"))
    assert not list((store.root / "engines").glob(".*"))
