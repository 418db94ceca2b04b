"""Runs suites beside each other: `python -m tests.support.suites NAME=COMMAND…`, the most urgent one first.

What waits for a cluster leaves processors to the suites after it, which run at a lower priority. Every line of output
begins with the name of its suite. Each one is run to its end, whatever becomes of the others; the exit status is 1 when
one has failed. An interrupt, or SIGTERM, interrupts all of them, and returns when they have ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tools.common.shell import WITH_PARENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

# Fixtures take down what they have brought up.
STOP_SECONDS = 180.0
_OUTPUT_SECONDS = 10.0
# A third of the first suite's weight: while that takes all it can get, requests of the others still end in time.
_NICENESS = 5
_BAD_USAGE, _INTERRUPTED = 64, 130


@dataclass(frozen=True)
class Suite:
    """A suite that runs, in a process group of its own.

    Attributes:
        name: for the reader of its output.
        process: which runs it.
        reader: copies its output.
        began: on the monotonic clock.
    """

    name: str
    process: subprocess.Popen[str]
    reader: threading.Thread
    began: float = field(default_factory=time.monotonic)

    def wait(self) -> int:
        """Return its exit status once all of its output is copied."""
        status = self.process.wait()
        self.reader.join()
        return status

    def stop(self, end: float) -> None:
        """Wait until it ends; at `end`, on the monotonic clock, kill whatever is left of it."""
        try:
            self.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.process.wait()
        self.reader.join(_OUTPUT_SECONDS)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


def start(name: str, command: str, niceness: int, output: IO[str]) -> Suite:
    """Start a command line of the shell.

    Args:
        name: put before every line of its output.
        command: what the shell is to run.
        niceness: added to this process's.
        output: where whole lines go.
    """
    argv = [*WITH_PARENT, "nice", "-n", str(niceness), "bash", "-c", command]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    _set_session_niceness(process.pid, niceness)
    reader = threading.Thread(target=_copy_lines, args=(process.stdout, name, output), daemon=True)
    reader.start()
    return Suite(name, process, reader)


def _set_session_niceness(pid: int, niceness: int) -> None:
    """Linux may share processors between sessions first (autogroup), whatever the niceness of their processes."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def _copy_lines(source: IO[str], name: str, output: IO[str]) -> None:
    with source:
        for line in source:
            # One write for each line: lines of different suites are never mixed.
            output.write(f"{name:>9} | {line.rstrip()}\n")
            output.flush()


def run(commands: Sequence[tuple[str, str]], output: IO[str]) -> int:
    """Run all suites; return 0 when all have succeeded.

    Args:
        commands: name and command of each, the most urgent one first.
        output: where whole lines go.

    Raises:
        KeyboardInterrupt: it, or SIGTERM, came; no suite is left.
    """
    suites = [start(name, command, _NICENESS if index else 0, output) for index, (name, command) in enumerate(commands)]
    try:
        statuses = [suite.wait() for suite in suites]
    except KeyboardInterrupt:
        for suite in suites:
            suite.send(signal.SIGINT)
        end = time.monotonic() + STOP_SECONDS
        for suite in suites:
            suite.stop(end)
        raise
    for suite, status in zip(suites, statuses, strict=True):
        output.write(f"{suite.name:>9} | {'succeeded' if status == 0 else f'FAILED with status {status}'}\n")
    return int(any(statuses))


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments name."""
    commands = [(name, command) for name, equals, command in (one.partition("=") for one in arguments) if equals]
    if not arguments or len(commands) < len(arguments):
        sys.stderr.write(f"Usage: {__spec__.name} NAME=COMMAND…, not: {' '.join(arguments)}\n")
        return _BAD_USAGE
    # Also where SIGINT is ignored, as in the background of a script: what is handled here is not ignored by the suites.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return run(commands, sys.stdout)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing of the suites is left\n")
        return _INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number, frame)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
