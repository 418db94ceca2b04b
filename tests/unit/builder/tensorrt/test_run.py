"""trtexec is found, followed line by line, and never outlives the build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.engines.tensorrt import run
from diffusion_builder.errors import BadInputError, BuilderError, Reason, UnavailableError
from tests.support.tensorrt import fake_programs as programs

if TYPE_CHECKING:
    from collections.abc import Callable

_DEADLINE_SECONDS = 20.0
# Says its process id and that parsing has begun, and then works for ever.
ENDLESS = 'echo $$ > "$1"\necho "[11/23/2026-16:42:43] [I] Start parsing network model."\nexec sleep 600'
OVERRIDDEN = (
    "[11/23/2026-16:42:43] [W] Dynamic dimensions required for input: guidance, but no shapes were provided. "
    "Automatically overriding shape to: 1x1"
)


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_steps_are_reported_while_it_runs(tmp_path: Path) -> None:
    program = programs.write(tmp_path) / "trtexec"
    steps: list[tuple[str, float]] = []
    run.build(program, [], "denoiser", lambda step: steps.append((step.phase, step.fraction)))
    assert steps == [("parse", 0.02), ("save", 1.0)]


def test_memory_of_each_profile_is_read_from_the_log(tmp_path: Path) -> None:
    stamp = "[01/31/2026-10:20:30] [I] [TRT]"
    said = "; ".join(f"echo '{stamp} Total Activation Memory: {size} bytes'" for size in (1167, 1223))
    program = programs.write(tmp_path, trtexec=said) / "trtexec"
    assert run.build(program, [], "denoiser", lambda _step: None) == (1167, 1223)


def test_a_failure_is_explained_and_its_log_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = programs.write(tmp_path, trtexec="echo '[E] Unknown option: --fp16 ' >&2; exit 1") / "trtexec"
    with pytest.raises(BuilderError, match="does not know --fp16") as caught:
        run.build(program, [], "denoiser", lambda _step: None)
    assert caught.value.reason is Reason.VERSION_MISMATCH
    assert "trtexec: [E] Unknown option: --fp16" in capsys.readouterr().err


def test_a_useless_build_is_ended_at_once(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = programs.write(tmp_path, trtexec=f'echo $$ > {pid_file}\necho "{OVERRIDDEN}"\nexec sleep 600') / "trtexec"
    began = time.monotonic()
    with pytest.raises(BadInputError, match="leaves out input guidance"):
        run.build(program, [], "denoiser", lambda _step: None)
    assert time.monotonic() - began < _DEADLINE_SECONDS
    assert not is_running(int(pid_file.read_text()))


def test_an_interrupted_build_ends_trtexec(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = programs.write(tmp_path, trtexec=ENDLESS) / "trtexec"

    def interrupt(_step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.build(program, [str(pid_file)], "denoiser", interrupt)
    assert not is_running(int(pid_file.read_text()))


def test_trtexec_ends_with_a_builder_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = programs.write(tmp_path, trtexec=ENDLESS) / "trtexec"
    script = (
        "import sys;from pathlib import Path;from diffusion_builder.engines.tensorrt import run;"
        "run.build(Path(sys.argv[1]),[sys.argv[2]],'denoiser',print)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    builder = subprocess.Popen(
        [sys.executable, "-c", script, str(program), str(pid_file)], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        wait_for("trtexec runs", lambda: pid_file.exists() and bool(pid_file.read_text().strip()))
        trtexec = int(pid_file.read_text())
        assert is_running(trtexec)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    wait_for("trtexec has ended", lambda: not is_running(trtexec))


def test_an_image_without_trtexec_is_named_as_the_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run, "_USUAL_PLACE", str(tmp_path))
    with pytest.raises(BadInputError, match="needs a builder image with TensorRT"):
        run.trtexec()


def test_a_pod_without_nvidia_smi_has_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"nvidia\.com/gpu") as caught:
        run.gpus()
    assert caught.value.reason is Reason.NO_GPU


def test_the_version_is_asked_without_a_gpu(tmp_path: Path) -> None:
    assert str(run.version(programs.write(tmp_path) / "trtexec")) == "10.13.3"


def test_a_program_that_does_not_start_is_a_bad_image(tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_bytes(b"\x7fELF no program")
    program.chmod(0o755)
    with pytest.raises(BadInputError, match="cannot be run"):
        run.version(program)
