"""Checkpoints from a hub and from folders: what is taken, and what is rejected with which reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.errors import ExitCode, Reason
from examples.demo_hub import HubHandler, HubServer, revision_of
from tests.support.loopback import serving
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BUILDER = ROOT / "builder"
_COMMAND = (sys.executable, "-m", "diffusion_builder", "fetch")


def _edit_index(folder: Path, **changes: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _edit_config(folder: Path, **changes: object) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _pickle_only(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def _cut_weights(folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _absurd_header(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 8 + b"{}" * 100)


_BAD: dict[str, tuple[Callable[[Path], object], Reason]] = {
    "pickle-only": (_pickle_only, Reason.PICKLE_ONLY),
    "no-vae": (lambda folder: shutil.rmtree(folder / "vae"), Reason.MISSING_COMPONENT),
    "no-weights": (
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(), Reason.MISSING_FILE,
    ),
    "no-index": (lambda folder: (folder / "model_index.json").unlink(), Reason.MISSING_FILE),
    "no-unet-in-index": (lambda folder: _edit_index(folder, unet=[None, None]), Reason.MISSING_COMPONENT),
    "other-pipeline": (lambda folder: _edit_index(folder, _class_name="FluxPipeline"), Reason.UNSUPPORTED_PIPELINE),
    "other-unet": (
        lambda folder: _edit_index(folder, unet=["diffusers", "UNet3DConditionModel"]), Reason.UNSUPPORTED_COMPONENT,
    ),
    "own-code": (lambda folder: _edit_index(folder, unet=["my_unet", "Unet"]), Reason.REMOTE_CODE),
    "auto-map": (lambda folder: _edit_config(folder, auto_map={"AutoModel": "x.Y"}), Reason.REMOTE_CODE),
    "config-list": (lambda folder: (folder / "unet" / "config.json").write_text("[]"), Reason.INVALID_CONFIG),
    "config-cut": (lambda folder: (folder / "unet" / "config.json").write_text('{"a":'), Reason.INVALID_CONFIG),
    "deep-json": (lambda folder: (folder / "unet" / "config.json").write_text("[" * 99999), Reason.INVALID_CONFIG),
    "cut-weights": (_cut_weights, Reason.INVALID_WEIGHTS),
    "absurd-header": (_absurd_header, Reason.INVALID_WEIGHTS),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(random_checkpoint, folder / "demo" / "good")
    # Pickles beside safetensors are common and harmless: they are simply not taken.
    (folder / "demo" / "good" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    for name, (corrupt, _reason) in _BAD.items():
        shutil.copytree(random_checkpoint, folder / "bad" / name)
        corrupt(folder / "bad" / name)
    return folder


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[str]:
    with serving(HubServer(("127.0.0.1", 0), root, quiet=True)) as address:
        yield address


def _fetch(store: Path, endpoint: str, *arguments: str, **environment: str) -> tuple[int, dict[str, object], str]:
    """Run the stage as a Job does; returns exit code, result file, and stderr."""
    result = store.parent / "result.json"
    result.unlink(missing_ok=True)
    process = subprocess.run(
        [*_COMMAND, "--store", str(store), "--result", str(result), *arguments],
        capture_output=True, text=True, check=False, cwd=_BUILDER,
        env=os.environ | {"HF_ENDPOINT": endpoint} | environment,
    )  # fmt: skip
    return process.returncode, json.loads(result.read_text()), process.stderr


def _error(body: dict[str, object]) -> tuple[str, str]:
    error = body["error"]
    assert isinstance(error, dict)
    return error["reason"], error["message"]


def test_hub_source_holds_only_safe_files_and_a_second_fetch_asks_nobody(tmp_path: Path, hub: str, root: Path) -> None:
    revision = revision_of(root / "demo" / "good")
    reference = ("--repo", "demo/good", "--revision", revision)
    code, first, _ = _fetch(tmp_path / "store", hub, *reference)
    assert (code, first["cached"], first["pipelineClass"]) == (0, False, "StableDiffusionPipeline")
    folder = tmp_path / "store" / "sources" / str(first["digest"])
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".txt", ".safetensors"}
    code, second, _ = _fetch(tmp_path / "store", "http://127.0.0.1:1", *reference)
    assert (code, second["cached"], second["digest"]) == (0, True, first["digest"])


def test_folder_and_hub_give_the_same_components(tmp_path: Path, hub: str, root: Path) -> None:
    folder = root / "demo" / "good"
    _, from_hub, _ = _fetch(tmp_path / "a" / "store", hub, "--repo", "demo/good", "--revision", revision_of(folder))
    _, from_folder, _ = _fetch(tmp_path / "b" / "store", hub, "--path", str(folder))
    assert from_hub["subfolders"] == from_folder["subfolders"]


@pytest.mark.parametrize("name", _BAD)
def test_bad_checkpoint_on_the_hub_is_rejected_with_its_reason(tmp_path: Path, hub: str, root: Path, name: str) -> None:
    code, body, stderr = _fetch(
        tmp_path / "store", hub, "--repo", f"bad/{name}", "--revision", revision_of(root / "bad" / name)
    )
    assert (code, _error(body)[0]) == (ExitCode.BAD_INPUT, _BAD[name][1])
    assert "Traceback" not in stderr
    assert not list((tmp_path / "store").glob("sources/*"))


@pytest.mark.parametrize("name", _BAD)
def test_bad_folder_is_rejected_with_its_reason(tmp_path: Path, root: Path, name: str) -> None:
    code, body, _ = _fetch(tmp_path / "store", "http://127.0.0.1:1", "--path", str(root / "bad" / name))
    assert (code, _error(body)[0]) == (ExitCode.BAD_INPUT, _BAD[name][1])
    assert not list((tmp_path / "store").glob("sources/*"))


class Recording(HubHandler):
    """Remembers which files were sent, on the server that it belongs to."""

    server: RecordingServer

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        self.server.sent.append(self.path)
        super().do_GET()


class RecordingServer(HubServer):
    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), root, quiet=True)
        self.RequestHandlerClass = Recording
        self.sent: list[str] = []


def test_unsupported_pipeline_costs_no_weights(root: Path, tmp_path: Path) -> None:
    revision = revision_of(root / "bad" / "other-pipeline")
    with RecordingServer(root) as server, serving(server) as address:
        code, _, _ = _fetch(tmp_path / "store", address, "--repo", "bad/other-pipeline", "--revision", revision)
    assert code == ExitCode.BAD_INPUT
    assert any("model_index.json" in path for path in server.sent)
    assert not any(".safetensors" in path for path in server.sent)


@pytest.mark.parametrize(
    ("repo", "revision", "reason", "code"),
    [
        ("demo/good", "0" * 40, Reason.REVISION_NOT_FOUND, ExitCode.BAD_INPUT),
        ("demo/nothing", "0" * 40, Reason.REPOSITORY_NOT_FOUND, ExitCode.BAD_INPUT),
        ("demo/good", "main", Reason.INVALID_ARGUMENT, ExitCode.BAD_INPUT),
        ("good", "0" * 40, Reason.INVALID_ARGUMENT, ExitCode.BAD_INPUT),
    ],
)
def test_what_is_not_on_the_hub_is_named(
    tmp_path: Path, hub: str, repo: str, revision: str, reason: Reason, code: ExitCode
) -> None:
    got, body, _ = _fetch(tmp_path / "store", hub, "--repo", repo, "--revision", revision)
    assert (got, _error(body)[0]) == (code, reason)
    assert repo in _error(body)[1] or revision in _error(body)[1]


def test_unreachable_hub_may_be_tried_again(tmp_path: Path) -> None:
    code, body, stderr = _fetch(tmp_path / "store", "http://127.0.0.1:1", "--repo", "demo/good", "--revision", "0" * 40)
    assert (code, _error(body)[0]) == (ExitCode.UNAVAILABLE, Reason.HUB_UNREACHABLE)
    assert "Traceback" not in stderr


def test_missing_token_file_is_named(tmp_path: Path, hub: str) -> None:
    missing = str(tmp_path / "token")
    code, body, _ = _fetch(
        tmp_path / "store", hub, "--repo", "demo/good", "--revision", "0" * 40, HF_TOKEN_PATH=missing
    )
    assert (code, _error(body)[0]) == (ExitCode.BAD_INPUT, Reason.ACCESS_DENIED)
    assert missing in _error(body)[1]


def test_link_that_leads_out_of_the_folder_is_rejected(tmp_path: Path, random_checkpoint: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    (folder / "unet" / "config.json").unlink()
    (folder / "unet" / "config.json").symlink_to("/etc/passwd")
    code, body, _ = _fetch(tmp_path / "store", "http://127.0.0.1:1", "--path", str(folder))
    assert (code, _error(body)[0]) == (ExitCode.BAD_INPUT, Reason.UNSAFE_PATH)


def test_hub_serves_ranges_so_that_downloads_resume(hub: str, root: Path) -> None:
    name = "unet/config.json"
    content = (root / "demo" / "good" / name).read_bytes()
    address = f"{hub}/demo/good/resolve/main/{name}"
    request = urllib.request.Request(address, headers={"Range": "bytes=5-"})  # noqa: S310 - our own server
    with urllib.request.urlopen(request) as response:  # noqa: S310 - same
        assert response.status == 206
        assert response.read() == content[5:]
        assert response.headers["Content-Range"] == f"bytes 5-{len(content) - 1}/{len(content)}"
