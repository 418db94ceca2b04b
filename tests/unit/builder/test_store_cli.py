"""The store's commands, as a person and as the operator call them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.cli import main as cli
from diffusion_builder.cli.store import duration
from diffusion_builder.errors import ExitCode
from diffusion_builder.store import Artifact, Kind, Recipe, Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _run(*arguments: str) -> int:
    try:
        cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[Artifact, Artifact]:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "weights").write_bytes(bytes(3000))
        return {"component": "denoiser"}

    store = Store(tmp_path / "store", lambda: time.time() - 7200)
    onnx, _ = store.publish(Recipe(Kind.ONNX, {}), write)
    engine, _ = store.publish(Recipe(Kind.ENGINE, {}, derived_from=(onnx,)), write)
    return onnx, engine


def _result(tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    file = tmp_path / "result.json"
    code = _run("store", *arguments, "--store", str(tmp_path / "store"), "--result", str(file))
    assert file.stat().st_size <= 4096
    return code, json.loads(file.read_text())


def test_ls_shows_what_there_is_and_who_needs_it(
    tmp_path: Path, artifacts: tuple[Artifact, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    onnx, engine = (item.manifest.digest[:12] for item in artifacts)
    assert _run("store", "ls", "--store", str(tmp_path / "store")) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["KIND", "DIGEST", "COMPONENT", "SIZE", "AGE", "REFERENCED", "BY"]
    assert [line.split() for line in lines] == [
        ["onnx", onnx, "denoiser", "2.9", "KiB", "2h", engine],
        ["engines", engine, "denoiser", "2.9", "KiB", "2h", "-"],
    ]


def test_ls_shows_damage_and_an_empty_store(
    tmp_path: Path, artifacts: tuple[Artifact, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    (artifacts[0].path / "manifest.json").write_text("{}")
    assert _run("store", "ls", "--store", str(tmp_path / "store")) == 0
    assert "DAMAGED" in capsys.readouterr().out
    assert _run("store", "ls", "--store", str(tmp_path / "nothing")) == 0


def test_verify_passes_or_names_every_damaged_file(tmp_path: Path, artifacts: tuple[Artifact, Artifact]) -> None:
    code, body = _result(tmp_path, "verify")
    assert (code, body["artifacts"], body["sizeBytes"]) == (0, 2, 6000)
    for artifact in artifacts:
        (artifact.path / "weights").write_bytes(bytes(2999) + b"x")
    (artifacts[0].path / "more").write_text("not in the manifest")
    code, body = _result(tmp_path, "verify")
    assert (code, body["error"]["reason"]) == (ExitCode.STORE, "ArtifactDamaged")
    for path in (artifacts[0].path / "weights", artifacts[1].path / "weights", artifacts[0].path / "more"):
        assert str(path) in body["error"]["message"]
    code, _ = _result(tmp_path, "verify", "0" * 64)
    assert code == ExitCode.BAD_INPUT


def test_gc_tells_and_then_deletes(tmp_path: Path, artifacts: tuple[Artifact, Artifact]) -> None:
    keep = ("gc", "--keep", artifacts[0].manifest.digest, "--grace", "1h")
    code, preview = _result(tmp_path, *keep, "--dry-run")
    assert (code, preview["dryRun"], preview["deleted"], preview["retained"], preview["freedBytes"]) == (
        0,
        True,
        1,
        1,
        3000,
    )
    assert artifacts[1].path.exists()
    code, report = _result(tmp_path, *keep)
    assert (code, report["deleted"], report["freedBytes"]) == (0, 1, 3000)
    assert [item.path.exists() for item in artifacts] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--keep-nothing"),
        (("--keep", "0" * 64, "--keep-nothing"), "--keep-nothing"),
        (("--keep-nothing", "--grace", "soon"), "24h"),
        (("--keep", "0" * 12), "nothing was deleted"),
    ],
)
def test_gc_rejects_what_could_be_meant_otherwise(
    tmp_path: Path, artifacts: tuple[Artifact, Artifact], arguments: tuple[str, ...], says: str
) -> None:
    code, body = _result(tmp_path, "gc", *arguments)
    assert code == ExitCode.BAD_INPUT
    assert says in body["error"]["message"]
    assert all(item.path.exists() for item in artifacts)


def test_gc_of_everything_must_be_said(tmp_path: Path, artifacts: tuple[Artifact, Artifact]) -> None:
    code, body = _result(tmp_path, "gc", "--keep-nothing", "--grace", "0")
    assert (code, body["deleted"], body["retained"]) == (0, 2, 0)
    assert not any(item.path.exists() for item in artifacts)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds
