"""out/chaos.json, the table on a terminal, and the generated part of docs/reliability.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.console import Console

from tests.support.chaos.plans import Row, row_of
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

OUT = ROOT / "out" / "chaos.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- rows: begin -->", "<!-- rows: end -->"


def read_rows(path: Path = OUT) -> list[Row]:
    """Rows of earlier runs; none where there is no file."""
    return [row_of(body) for body in json.loads(path.read_text())["rows"]] if path.exists() else []


def write_rows(rows: Iterable[Row], path: Path = OUT) -> list[Row]:
    """Replace the rows of these areas, and return all."""
    new = list(rows)
    areas = {row.area for row in new}
    merged = [row for row in read_rows(path) if row.area not in areas] + new
    merged.sort(key=lambda row: row.area)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": [row.as_json() for row in merged]}, indent=2) + "\n")
    return merged


def print_rows(rows: Iterable[Row]) -> None:
    """A line for each row, and below it what failed."""
    console = Console(soft_wrap=True, highlight=False)
    for row in rows:
        verdict = "FAILED" if row.failures else "ok"
        console.print(f"{verdict:6} {row.area:12} {row.measured} (bound: {row.bound}; {row.plans} plans)", markup=False)
        for failure in row.failures:
            console.print(f"       {failure}", markup=False)


def write_page() -> None:
    """Make the generated part of docs/reliability.md from out/chaos.json."""
    PAGE.write_text(page(PAGE.read_text(), read_rows()))


def page(text: str, rows: Sequence[Row]) -> str:
    """The page with its generated part made anew.

    Raises:
        ValueError: the page has no such part.
    """
    before, begin, tail = text.partition(BEGIN)
    _, end, after = tail.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no lines {BEGIN} and {END}: add them where the table belongs")
    return f"{before}{BEGIN}\n\n{_markdown(rows)}\n{END}{after}"


def _markdown(rows: Sequence[Row]) -> str:
    lines = ["| property | bound | measured | plans | command |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = row.measured if not row.failures else f"**{len(row.failures)} failed**; {row.measured}"
        lines.append(f"| {row.promise} | {row.bound} | {verdict} | {row.plans:,} | `{row.command}` |")
    return "\n".join(lines) + "\n"
