"""Suites that run beside each other: whose line it is, how it ends, and that nothing of them stays."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.support import suites

PROGRAM = [sys.executable, "-m", "tests.support.suites"]
# Says who it is, and that fixtures would have taken down what they brought up.
SUITE = "sleep 300 >/dev/null 2>&1 & trap 'kill $!; echo taken down; exit 2' INT; echo $$; wait"
STUBBORN = "trap '' INT; echo $$; while true; do read -t 0.05 < <(:) || true; done"


@pytest.mark.parametrize(("statuses", "status"), [((0, 0), 0), ((0, 3), 1), ((3, 0), 1)])
def test_all_run_to_their_end_and_one_that_fails_fails_the_whole(statuses: tuple[int, int], status: int) -> None:
    output = io.StringIO()
    commands = [(f"suite-{index}", f"echo begin; echo end >&2; exit {code}") for index, code in enumerate(statuses)]
    assert suites.run(commands, output) == status
    lines = [line.split(" | ") for line in output.getvalue().splitlines()]
    for index, code in enumerate(statuses):
        end = f"FAILED with status {code}" if code else "succeeded"
        assert [text for name, text in lines if name.strip() == f"suite-{index}"] == ["begin", "end", end]


def test_those_after_the_first_run_at_a_lower_priority() -> None:
    output = io.StringIO()
    suites.run([("first", "nice"), ("second", "nice"), ("third", "nice")], output)
    levels = dict(line.split(" | ") for line in output.getvalue().splitlines()[:3])
    low = str(min(19, os.nice(0) + 5))
    assert {name.strip(): level for name, level in levels.items()} == {
        "first": str(os.nice(0)),
        "second": low,
        "third": low,
    }


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="a kernel that knows no autogroups")
def test_so_does_their_session() -> None:
    """The group is there from the beginning; its niceness comes a moment after the process."""
    output = io.StringIO()
    watch = "until grep -o 'nice .*' /proc/self/autogroup | grep 'nice {}$'; do true; done"
    suites.run([("first", watch.format(0)), ("second", watch.format(5))], output)
    assert sorted(output.getvalue().splitlines()[:2]) == ["    first | nice 0", "   second | nice 5"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("shell", ["", "trap '' INT; "], ids=["on a terminal", "in the background of a script"])
def test_an_interrupt_lets_all_of_them_take_down_what_is_theirs(number: signal.Signals, shell: str) -> None:
    program = ["bash", "-c", f'{shell}exec "$@"', "bash", *PROGRAM]
    with subprocess.Popen(
        [*program, f"first={SUITE}", f"second={SUITE}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [read_pid(process.stdout) for _ in range(2)]
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.count("taken down") == 2
    assert "nothing of the suites is left" in errors
    assert not any(lives(pid) for pid in pids)


def test_one_that_does_not_end_is_killed() -> None:
    read, write = os.pipe()
    with open(read) as reader, open(write, "w") as writer:  # noqa: PTH123 - descriptors
        suite = suites.start("stubborn", STUBBORN, 0, writer)
        pid = read_pid(reader)
        suite.send(signal.SIGINT)
        suite.stop(0.0)
        assert not lives(pid)
        assert suite.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("arguments", [[], ["no command"]])
def test_a_wrong_command_line_is_answered_with_the_right_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert suites.main(arguments) == 64
    assert "NAME=COMMAND" in capsys.readouterr().err


def read_pid(output: IO[str]) -> int:
    """Of the shell that is behind the next line."""
    return int(output.readline().split(" | ")[1])


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
