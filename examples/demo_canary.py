#!/usr/bin/env python3
"""`make demo-canary`: a better denoiser is promoted, one with wrong colours is refused, and nobody loses a picture.

Brings up what `make demo` brings up, lets users ask for pictures all the time, applies examples/pipeline-canary.yaml,
shows what the operator makes of it, and does the same with demo/wrong-colours. What both revisions drew lies side by
side in out/canary-*.png. Run it again after a change or after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.markup import escape

from examples.demo import serve
from examples.demo_support import canary
from examples.demo_support.board import Board, Row
from examples.demo_support.cluster import own_kubeconfig
from examples.demo_support.errors import DemoError
from examples.demo_support.settings import Settings, from_environment
from examples.demo_support.visitors import Visitors, Visits, visitors

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARIES: dict[str, canary.End] = {"few-steps": "promoted", "wrong-colours": "refused"}


@dataclass(frozen=True)
class Ended:
    """One canary at its end, and where its contact sheet lies."""

    denoiser: str
    result: canary.Result
    path: Path


def main() -> int:
    """Run it; 0 when both ended as they should, 1 with one readable block when not, 130 after Ctrl-C."""
    console = Console(highlight=False)
    try:
        settings = from_environment(os.environ, own_kubeconfig())
        ended, visits = _run(settings, console)
    except DemoError as error:
        console.print(f"\n[bold red]The demo stopped.[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n[yellow]Stopped. Run it again: it goes on from here.[/]")
        return 130
    console.print(summary(settings, ended, visits), soft_wrap=True)
    return 0


def _run(settings: Settings, console: Console) -> tuple[list[Ended], Visits]:
    with Board(console) as board:
        made = serve(settings, board)
    tools = made.cluster.tools
    with visitors(tools, made.images["demo-hub"], settings.namespace, made.name) as asking:
        ended = [
            _try(settings, canary.apply(tools, settings.namespace, name), name, asking, console) for name in CANARIES
        ]
        visits = asking.visits()
    if visits.lost:
        raise DemoError(f"Users lost requests: {visits}.")
    return ended, visits


def _try(settings: Settings, place: canary.Place, denoiser: str, asking: Visitors, console: Console) -> Ended:
    console.print(f"\n[bold]demo/{denoiser}[/] as the denoiser")
    path = settings.out / f"canary-{denoiser}.png"
    with Board(console) as board:
        result = canary.follow(place, board, _visit_rows(asking))
    if result.end != CANARIES[denoiser]:
        said = "\n".join(result.words)
        raise DemoError(f"demo/{denoiser} was {result.end}, not {CANARIES[denoiser]}.\n{said}")
    canary.save(result, path)
    return Ended(denoiser, result, path)


def _visit_rows(asking: Visitors) -> Iterator[Row]:
    while True:
        visits = asking.visits()
        state = "Failed" if visits.lost else "Running"
        yield Row(name="users", state=state, detail=str(visits))


def summary(settings: Settings, ended: list[Ended], visits: Visits) -> str:
    """What the person reads at the end: verdicts, contact sheets, what the users got, and how to go on."""
    lines = []
    for one in ended:
        style = "green" if one.result.end == "promoted" else "red"
        lines.append(f"\n[bold]demo/{one.denoiser}[/]  [{style}]{one.result.end}[/] after {one.result.seconds:.0f} s")
        lines += [f"  {escape(text)}" for text in one.result.words]
        lines.append(f"  stable left, canary right: [bold]{one.path}[/]")
    lines.append(f"\nUsers meanwhile: {escape(str(visits))}.")
    where = f"-n {settings.namespace}"
    lines.append(f"\nGo on:\n  kubectl {where} describe dp shapes")
    lines.append(f"  .venv/bin/diffusion-operator rollout status shapes {where}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
