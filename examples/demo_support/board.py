"""The table on the terminal: one row for each thing that is going on."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from rich.console import Console

_STYLES = {"Ready": "green", "Running": "yellow", "Failed": "bold red", "Waiting": "dim", "Pending": "dim"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: What it is about; a row with the same name replaces the former.
        state: Waiting, Pending, Running, Ready or Failed.
        seconds: How long it took, or has taken so far where `since` is None.
        detail: What is being done, or what came out.
        since: Start on the monotonic clock of something that is still running.
    """

    name: str
    state: str
    seconds: float | None = None
    detail: str = ""
    since: float | None = None

    def elapsed(self, now: float) -> str:
        """Return the seconds for display."""
        seconds = now - self.since if self.since is not None and self.state == "Running" else self.seconds
        return "" if seconds is None else f"{seconds:.1f} s"


class Board:
    """Rows in the order in which they first came; safe to use from several threads.

    On a terminal it is one table that stays in place; elsewhere each change of a state is one line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, rows: Iterable[Row]) -> None:
        """Show these rows; the others stay as they are."""
        for row in rows:
            with self._lock:
                before = self._rows.get(row.name)
                self._rows[row.name] = row
            if not self._console.is_terminal and (before is None or before.state != row.state):
                line = f"{row.name:<28} {row.state:<8} {row.elapsed(time.monotonic()):>9}  {row.detail}"
                self._console.print(line.rstrip(), highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def task(self, name: str) -> Iterator[Callable[[str], None]]:
        """Show a row for as long as the block runs; the block may set the detail."""
        start = time.monotonic()
        details = [""]

        def set_detail(detail: str) -> None:
            details.append(detail)
            self.update([Row(name=name, state="Running", detail=detail, since=start)])

        set_detail("")
        state = "Failed"
        try:
            yield set_detail
            state = "Ready"
        finally:
            self.update([Row(name=name, state=state, seconds=time.monotonic() - start, detail=details[-1])])

    def render(self) -> Table:
        """Return the table as it is now."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("component", no_wrap=True)
        table.add_column("state")
        table.add_column("time", justify="right")
        table.add_column("", overflow="ellipsis", no_wrap=True, style="dim")
        now = time.monotonic()
        with self._lock:
            rows = list(self._rows.values())
        for row in rows:
            style = _STYLES.get(row.state, "")
            # Text, since a detail may hold brackets, which rich would read as markup.
            cells = (row.name, Text(row.state, style), row.elapsed(now), Text(row.detail))
            table.add_row(*cells)
        return table
