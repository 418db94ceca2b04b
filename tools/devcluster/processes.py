"""Long-running components: start, find again, stop. A component outlives the command that started it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.errors import ToolError
from tools.common.files import write
from tools.common.shell import tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tools.devcluster.layout import Layout

_POLL_SECONDS = 0.05
_STOP_SECONDS = 20.0
_LOG_READ_BYTES = 16384


@dataclass(frozen=True)
class Component:
    """A program to keep running.

    Attributes:
        name: Unique in the cluster; ``kubelet@cpu-0`` for a component of a node.
        argv: The program and its arguments.
        env: Added to this process's environment.
        inputs: Files whose content matters: when one changes, the component is started anew.
    """

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of everything that the running process was started from."""
        contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.inputs]
        return hashlib.sha256(repr((self.argv, sorted(self.env.items()), contents)).encode()).hexdigest()


@dataclass(frozen=True)
class Running:
    """A started component. The start time tells it from a later process with the same pid."""

    pid: int
    started: int
    digest: str


class Processes:
    """The components of one cluster, recorded in files below ``layout.processes``."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def log(self, name: str) -> Path:
        """Return a component's log file."""
        return self._layout.logs / f"{name}.log"

    def names(self) -> list[str]:
        """Return every component that was started and not stopped, running or not."""
        return sorted(path.stem for path in self._layout.processes.glob("*.json"))

    def find(self, name: str) -> Running | None:
        """Return the component if it runs."""
        try:
            running = Running(**json.loads(self._record(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        # A component that ended before it could be recorded has no start time.
        return running if running.started and _start_time(running.pid) == running.started else None

    def pid(self, name: str) -> int:
        """Return the pid of a running component.

        Raises:
            ToolError: It does not run.
        """
        running = self.find(name)
        if running is None:
            raise ToolError(f"{name} does not run", do="python -m tools.devcluster up")
        return running.pid

    def ensure(self, component: Component) -> bool:
        """Make the component run as described; return whether it had to be started."""
        running = self.find(component.name)
        digest = component.digest
        if running and running.digest == digest:
            return False
        self.stop(component.name)
        # A command that was killed between starting a component and recording it left one without record.
        kill_all(pids_of(lambda argv: argv == component.argv))
        pid = self._spawn(component)
        record = {"pid": pid, "started": _start_time(pid), "digest": digest}
        write(self._record(component.name), json.dumps(record))
        return True

    def stop(self, name: str, *, force: bool = False) -> bool:
        """Stop a component, by SIGKILL when ``force`` or when it takes long; return whether it ran."""
        running = self.find(name)
        if running:
            _end(running, signal.SIGKILL if force else signal.SIGTERM)
        self._record(name).unlink(missing_ok=True)
        return running is not None

    def wait(self, name: str, ready: Callable[[], bool], seconds: float, what: str = "ready") -> None:
        """Wait until ``ready()``.

        Raises:
            ToolError: The component ended meanwhile or the time is over; carries the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.find(name) is None:
                raise self._failure(name, f"{name} ended before it was {what}")
            if time.monotonic() > deadline:
                raise self._failure(name, f"{name} was not {what} within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _failure(self, name: str, what: str) -> ToolError:
        log = self.log(name)
        return ToolError(what, detail=_log_end(log), do=f"read {log}; then `devcluster down` and `up`")

    def _record(self, name: str) -> Path:
        return self._layout.processes / f"{name}.json"

    def _spawn(self, component: Component) -> int:
        log = self.log(component.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        # A session of its own: Ctrl-C on the terminal must not reach it.
        return os.posix_spawn(
            component.argv[0],
            component.argv,
            {**os.environ, **component.env},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # Python ignores SIGPIPE; a container must not inherit that.
            setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ),
        )


def pids_of(matches: Callable[[tuple[str, ...]], bool]) -> list[int]:
    """Return the living processes whose command line matches."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:
            continue  # it went away
        if matches(tuple(argv)):
            pids.append(int(folder.name))
    return pids


def kill_all(pids: Iterable[int]) -> None:
    """Send SIGKILL to processes and wait until they are gone."""
    for running in [Running(pid, _start_time(pid), "") for pid in pids]:
        if running.started:
            _end(running, signal.SIGKILL)


def _end(running: Running, first: signal.Signals) -> None:
    _signal(running.pid, first)
    deadline = time.monotonic() + _STOP_SECONDS
    while _start_time(running.pid) == running.started:
        if time.monotonic() > deadline:
            _signal(running.pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    if fields[0] in "ZX":
        _reap(pid)
        return 0
    return int(fields[19])


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # started by an earlier command: init reaps it


def _log_end(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_READ_BYTES))
        return tail(file.read().decode(errors="replace"))
