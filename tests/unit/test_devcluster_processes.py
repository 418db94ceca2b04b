"""Components outlive the command that started them, and every later command finds them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.common.errors import ToolError
from tools.devcluster.layout import Layout
from tools.devcluster.processes import Component, Processes, pids_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 10.0


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    running = Processes(Layout(tmp_path))
    yield running
    for name in running.names():
        running.stop(name, force=True)


def sleeper(tmp_path: Path, text: str = "", script: str = "exec sleep 60") -> Component:
    config = tmp_path / "config"
    config.write_text(text)
    return Component("sleeper", ("/bin/sh", "-c", f"{script} # {tmp_path}"), inputs=(config,))


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_running_component_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    assert processes.ensure(sleeper(tmp_path)) is True
    pid = processes.pid("sleeper")

    assert processes.ensure(sleeper(tmp_path)) is False
    assert processes.pid("sleeper") == pid


def test_a_changed_configuration_starts_the_component_anew(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path, "one"))
    before = processes.pid("sleeper")

    assert processes.ensure(sleeper(tmp_path, "two")) is True
    assert processes.pid("sleeper") != before
    assert not alive(before)


def test_another_command_finds_the_component(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path))

    assert Processes(Layout(tmp_path)).pid("sleeper") == processes.pid("sleeper")


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_ours(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path))
    record = next((Layout(tmp_path).processes).glob("*.json"))
    fields = json.loads(record.read_text())
    record.write_text(json.dumps(fields | {"pid": os.getpid()}))

    assert processes.find("sleeper") is None
    record.write_text(json.dumps(fields))


def test_a_half_written_record_counts_as_not_running(processes: Processes, tmp_path: Path) -> None:
    record = Layout(tmp_path).processes / "sleeper.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"pid": 1')

    assert processes.find("sleeper") is None


def test_a_component_that_ended_before_it_was_recorded_does_not_run(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path, script="exit 0"))
    record = next(Layout(tmp_path).processes.glob("*.json"))
    wait(lambda: processes.find("sleeper") is None)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"started": 0}))

    assert processes.find("sleeper") is None
    assert processes.stop("sleeper") is False


def test_a_component_started_but_never_recorded_is_replaced_not_doubled(processes: Processes, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    component = Component("sleeper", ("/usr/bin/tail", "-f", str(config)))

    def running() -> list[int]:
        return pids_of(lambda argv: argv == component.argv)

    processes.ensure(component)
    # The kernel lets the parent go on a moment before the new program's command line can be read.
    wait(lambda: running() == [processes.pid("sleeper")])
    (Layout(tmp_path).processes / "sleeper.json").unlink()

    processes.ensure(component)

    wait(lambda: running() == [processes.pid("sleeper")])


def test_stop_ends_even_a_component_that_ignores_the_request_when_forced(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path, script="trap '' TERM; echo up; while :; do sleep 0.1; done"))
    wait(lambda: "up" in processes.log("sleeper").read_text())
    pid = processes.pid("sleeper")

    assert processes.stop("sleeper", force=True) is True
    assert not alive(pid)
    assert processes.stop("sleeper", force=True) is False


def test_a_component_that_dies_while_it_is_waited_for_is_reported_with_the_end_of_its_log(
    processes: Processes, tmp_path: Path
) -> None:
    processes.ensure(sleeper(tmp_path, script="echo the port is taken >&2; exit 1"))

    with pytest.raises(ToolError, match="ended before it was ready") as caught:
        processes.wait("sleeper", lambda: False, SECONDS)

    assert "the port is taken" in caught.value.detail


def test_a_component_that_never_becomes_ready_is_reported(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path))

    with pytest.raises(ToolError, match="was not ready within"):
        processes.wait("sleeper", lambda: False, 0.1)


def test_a_component_has_a_session_of_its_own_so_that_an_interrupt_does_not_reach_it(
    processes: Processes, tmp_path: Path
) -> None:
    processes.ensure(sleeper(tmp_path))
    pid = processes.pid("sleeper")

    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_component_does_not_inherit_pythons_ignored_signals(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(sleeper(tmp_path))
    status = Path(f"/proc/{processes.pid('sleeper')}/status").read_text()

    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) & 1 << 12 == 0  # SIGPIPE


def test_the_pid_of_a_component_that_does_not_run_is_an_error_that_says_so(processes: Processes) -> None:
    with pytest.raises(ToolError, match="kubelet@cpu-0 does not run"):
        processes.pid("kubelet@cpu-0")
