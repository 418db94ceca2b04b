"""Progress of stages: lines for display, JSON lines for machines, a table for a terminal."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from types import TracebackType

    from rich.live import Live
    from rich.table import Table


class Mode(StrEnum):
    """How progress is shown; auto is a table on a terminal and plain lines elsewhere."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"


@dataclass(frozen=True)
class ProgressEvent:
    """Something happened.

    Args:
        stage: fetch, export, compile, assemble, verify, smoke-test.
        component: which one, or empty.
        phase: what it is doing; `done`, `cached` and `failed` end a stage.
        fraction: how much of the phase is done, 0 to 1, or None where that is unknown.
        message: one line for display, or empty.
    """

    stage: str
    component: str
    phase: str
    fraction: float | None = None
    message: str = ""


class Reporter(Protocol):
    """Where events go. A context manager, so that a terminal is left as it was found."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def report(self, event: ProgressEvent) -> None:
        """Show one event."""


class LineReporter:
    """One line per event."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def report(self, event: ProgressEvent) -> None:
        """Write the event at once; a Job's log is read while it runs."""
        print(json.dumps(asdict(event)) if self._as_json else _line(event), file=self._stream, flush=True)


def _line(event: ProgressEvent) -> str:
    percent = "" if event.fraction is None else f" {event.fraction:.0%}"
    message = f" {event.message}" if event.message else ""
    return f"{event.stage:<9} {event.component:<15} {event.phase}{percent}{message}"


@dataclass
class _Row:
    phase: str
    began: float
    seconds: float | None = None
    fraction: float | None = None


class TableReporter:
    """A live table: stage, component, state, seconds."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._rows: dict[tuple[str, str], _Row] = {}
        self._live: Live = Live(console=Console(file=stream), get_renderable=self._table, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def report(self, event: ProgressEvent) -> None:
        """Update the event's row."""
        now = time.monotonic()
        row = self._rows.setdefault((event.stage, event.component), _Row(event.phase, now))
        row.phase, row.fraction = event.phase, event.fraction
        if event.phase in FINAL_PHASES:
            row.seconds = now - row.began

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for heading in ("stage", "component", "state"):
            table.add_column(heading)
        table.add_column("seconds", justify="right")
        for (stage, component), row in self._rows.items():
            seconds = row.seconds if row.seconds is not None else time.monotonic() - row.began
            percent = "" if row.fraction is None or row.phase in FINAL_PHASES else f" {row.fraction:.0%}"
            style = {"done": "green", "cached": "cyan", "failed": "red"}.get(row.phase, "yellow")
            table.add_row(stage, component, f"[{style}]{row.phase}{percent}[/]", f"{seconds:.1f}")
        return table


FINAL_PHASES = frozenset({"done", "cached", "failed"})


def reporter(mode: Mode, stream: TextIO | None = None) -> Reporter:
    """Choose a reporter; everything goes to stderr, stdout is for results."""
    target = stream or sys.stderr
    if mode is Mode.AUTO and target.isatty():
        return TableReporter(target)
    return LineReporter(target, as_json=mode is Mode.JSON)
