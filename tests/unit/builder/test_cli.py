"""Every wrong call is exit code 64 with a block that says what to do, and a result that the operator reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.cli import main as cli
from diffusion_builder.errors import ExitCode, Reason
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind, Recipe, Store

if TYPE_CHECKING:
    from pathlib import Path


def _run(*arguments: str) -> int:
    try:
        cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


_D = "0" * 64


@pytest.mark.parametrize(
    ("arguments", "reason", "says"),
    [
        (["fetch"], Reason.INVALID_ARGUMENT, "either a folder"),
        (["fetch", "--repo", "a/b"], Reason.INVALID_ARGUMENT, "--revision"),
        (["fetch", "--repo", "a/b", "--revision", "main"], Reason.INVALID_ARGUMENT, "40 lower-case hex"),
        (["fetch", "--path", "/nowhere/at/all"], Reason.SOURCE_NOT_FOUND, "/nowhere/at/all"),
        (["export", "--source", _D, "--component", "denoiser"], Reason.ARTIFACT_NOT_FOUND, f"sources/{_D}"),
        (["export", "--source", "../..", "--component", "denoiser"], Reason.INVALID_ARGUMENT, "not a digest"),
        (["compile", "--onnx", _D], Reason.ARTIFACT_NOT_FOUND, f"onnx/{_D}"),
        (["compile", "--onnx", _D, "--shapes", "{"], Reason.INVALID_SPEC, "--shapes is not JSON"),
        (
            ["compile", "--onnx", _D, "--shapes", '{"batch": 4}'],
            Reason.INVALID_SPEC,
            "batch: Input should be",
        ),
        (["assemble", "--spec", "[]"], Reason.INVALID_SPEC, "--spec"),
        (["verify", "--repository", _D], Reason.ARTIFACT_NOT_FOUND, f"repositories/{_D}"),
    ],
)
def test_bad_input_has_a_reason_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: Reason, says: str
) -> None:
    result = tmp_path / "result.json"
    code = _run(*arguments, "--store", str(tmp_path / "store"), "--result", str(result))
    error = json.loads(result.read_text())["error"]
    assert (code, error["reason"]) == (ExitCode.BAD_INPUT, reason)
    assert says in error["message"]
    stderr = capsys.readouterr().err
    assert f"error: {reason}" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-stage"],
        ["fetch"],
        ["export", "--store", "x", "--source", _D, "--component", "dragon"],
        ["--progress", "x"],
    ],
)
def test_a_wrong_command_line_is_bad_input(arguments: list[str]) -> None:
    assert _run(*arguments) == ExitCode.BAD_INPUT


def test_a_bug_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> stages.Result:
        raise ZeroDivisionError("x" * 10_000)

    monkeypatch.setattr(stages, "verify", broken)
    result = tmp_path / "result.json"
    assert _run("verify", "--store", str(tmp_path), "--repository", _D, "--result", str(result)) == ExitCode.INTERNAL
    assert json.loads(result.read_text())["error"]["reason"] == "InternalError"
    assert result.stat().st_size <= 4096


def test_a_result_of_many_ensembles_fits_into_a_termination_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"inpaint_controlnet_ip_adapter_{steps}_pipeline" for steps in range(200)]

    def many(*_: object) -> stages.Result:
        return {"stage": "verify", "digest": _D, "ensembles": names, "stages": [["export", "denoiser", True]] * 20}

    monkeypatch.setattr(stages, "verify", many)
    result = tmp_path / "result.json"
    assert _run("verify", "--store", str(tmp_path), "--repository", _D, "--result", str(result)) == 0
    assert result.stat().st_size <= 4096
    body = json.loads(result.read_text())
    assert body["digest"] == _D
    assert len(body["stages"]) == 20
    assert len(body["ensembles"]) + body["omitted"]["ensembles"] == 200
    assert body["ensembles"] == names[: len(body["ensembles"])] != []


_SLOW = """
import sys, time
from diffusion_builder.cli import main as cli
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind, Recipe

def slow(context, digest):
    def write(folder):
        (folder / "half").write_text("half")
        print("go", flush=True)
        time.sleep(600)
        return {}

    context.store.publish(Recipe(Kind.ONNX, {}), write)

stages.verify = slow
cli.main(["verify", "--store", sys.argv[1], "--repository", "0" * 64])
"""


def test_a_terminated_stage_cleans_up_behind_itself(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _SLOW, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list((tmp_path / "onnx").iterdir()) == []


def test_store_ls_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, _ = Store(tmp_path).publish(Recipe(Kind.ONNX, {}), lambda _folder: {"component": "denoiser"})
    digest = artifact.manifest.digest
    assert _run("store", "ls", "--store", str(tmp_path)) == 0
    assert f"{digest[:12]}" in capsys.readouterr().out
    assert _run("store", "show", "--store", str(tmp_path), digest[:8]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest
    assert _run("store", "show", "--store", str(tmp_path), "zz") == ExitCode.BAD_INPUT
