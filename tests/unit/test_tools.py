"""What the repository's tools share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from tools.common import packages
from tools.common.cli import run_command
from tools.common.errors import BAD_INPUT, ToolError, bad_input
from tools.common.paths import cache_directory
from tools.common.shell import WITH_PARENT, attempt, run_logged


@click.command()
@click.option("--fail", "failure")
def cli(failure: str | None) -> None:
    """A command that ends as it is told."""
    if failure == "input":
        raise bad_input("the disk is full", do="make room")
    if failure == "tool":
        raise ToolError("it broke")
    if failure == "interrupt":
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        ([], 0, ""),
        (["--fail", "input"], BAD_INPUT, "error: the disk is full\n  do: make room\n"),
        (["--fail", "tool"], 1, "error: it broke\n"),
        (["--fail", "interrupt"], 130, "interrupted: run the same command again to continue\n"),
    ],
)
def test_a_command_ends_with_a_status_and_one_readable_block(
    arguments: list[str], status: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(cli, "program", arguments) == status
    assert capsys.readouterr().err.lstrip("\n") == output


def test_a_usage_error_is_bad_input_and_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(cli, "program", ["--fial"]) == BAD_INPUT
    assert "--fial" in capsys.readouterr().err


def test_the_cache_is_where_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_OPERATOR_CACHE", "~/elsewhere")
    assert cache_directory() == Path.home() / "elsewhere"
    monkeypatch.delenv("DIFFUSION_OPERATOR_CACHE")
    assert cache_directory() == Path.home() / ".cache" / "diffusion-operator"


def test_a_program_that_runs_too_long_is_ended() -> None:
    process = attempt([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.1)
    assert process.returncode == 124
    assert "did not end" in process.stderr


def test_a_logged_program_that_fails_tells_its_last_lines_and_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "build.log"
    run_logged(["echo", "first"], log, what="building")
    with pytest.raises(ToolError) as caught:
        run_logged(["sh", "-c", "echo second; exit 3"], log, what="building")
    assert str(caught.value) == f"building ended with status 3\n  | second\n  do: read the whole log: {log}"
    assert log.read_text() == "first\nsecond\n"


def test_uv_is_found_in_the_cache_when_it_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DIFFUSION_OPERATOR_CACHE", str(tmp_path))
    with pytest.raises(ToolError, match="uv is not installed"):
        packages.require_uv()
    program = tmp_path / "uv" / "bin" / "uv"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert packages.find_uv() == program
    other = tmp_path / "other-uv"
    other.touch()
    monkeypatch.setenv("UV", str(other))
    assert packages.require_uv() == other


def test_pip_installs_where_uv_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def refuse_uv(argv: list[str | Path]) -> subprocess.CompletedProcess[str]:
        calls.append(list(map(str, argv)))
        return subprocess.CompletedProcess(argv, int(argv[1] == "pip"), "", "no network")

    monkeypatch.setattr(packages, "find_uv", lambda: Path("/uv"))
    monkeypatch.setattr(packages, "attempt", refuse_uv)
    packages.install_python_packages(["a==1"], tmp_path)
    assert [call[:3] for call in calls] == [["/uv", "pip", "install"], [sys.executable, "-m", "pip"]]
    assert all(call[call.index("--target") + 1] == str(tmp_path) and "a==1" in call for call in calls)


def test_without_apt_get_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="missing: no-such-program"):
        packages.require_program("no-such-program")


# It ends in the handler: a signal that comes before the pause would let it wait for the alarm.
_SERVER = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("terminated", flush=True)))
signal.alarm(30)
print("up", flush=True)
signal.pause()
"""


def test_a_server_ends_with_the_process_that_started_it() -> None:
    command = [*WITH_PARENT, sys.executable, "-c", _SERVER]
    starter = f"import subprocess, sys; subprocess.Popen({command!r}); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        assert process.stdout.read() == b"terminated\n"
