#!/usr/bin/env python3
"""`make demo-canary`: a better denoiser is promoted, one with wrong colours is rejected, and no image is lost.

Brings up what `make demo` brings up, lets users ask for images all the time, applies examples/pipeline-canary.yaml,
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
from examples.demo_support.load_generator import LoadGenerator, LoadStats, load_generator
from examples.demo_support.settings import Settings, from_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARIES: dict[str, canary.CanaryEnd] = {"few-steps": "promoted", "wrong-colours": "rejected"}


@dataclass(frozen=True)
class FinishedCanary:
    """One canary at its end, and where its contact sheet lies."""

    denoiser: str
    result: canary.Result
    path: Path


def main() -> int:
    """Run it; 0 when both finished as they should, 1 with one readable block when not, 130 after Ctrl-C."""
    console = Console(highlight=False)
    try:
        settings = from_environment(os.environ, own_kubeconfig())
        finished, stats = _run(settings, console)
    except DemoError as error:
        console.print(f"\n[bold red]The demo stopped.[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n[yellow]Stopped. Run it again: it goes on from here.[/]")
        return 130
    console.print(summary(settings, finished, stats), soft_wrap=True)
    return 0


def _run(settings: Settings, console: Console) -> tuple[list[FinishedCanary], LoadStats]:
    with Board(console) as board:
        served = serve(settings, board)
    tools = served.cluster.tools
    with load_generator(tools, served.images["demo-hub"], settings.namespace, served.name) as generator:
        finished = [
            _try(settings, canary.apply(tools, settings.namespace, name), name, generator, console) for name in CANARIES
        ]
        stats = generator.stats()
    if stats.failed:
        raise DemoError(f"Users lost requests: {stats}.")
    return finished, stats


def _try(
    settings: Settings, place: canary.Place, denoiser: str, generator: LoadGenerator, console: Console
) -> FinishedCanary:
    console.print(f"\n[bold]demo/{denoiser}[/] as the denoiser")
    path = settings.out / f"canary-{denoiser}.png"
    with Board(console) as board:
        result = canary.follow(place, board, _load_rows(generator))
    if result.end != CANARIES[denoiser]:
        messages = "\n".join(result.messages)
        raise DemoError(f"demo/{denoiser} was {result.end}, not {CANARIES[denoiser]}.\n{messages}")
    canary.save(result, path)
    return FinishedCanary(denoiser, result, path)


def _load_rows(generator: LoadGenerator) -> Iterator[Row]:
    while True:
        stats = generator.stats()
        state = "Failed" if stats.failed else "Running"
        yield Row(name="users", state=state, detail=str(stats))


def summary(settings: Settings, finished: list[FinishedCanary], stats: LoadStats) -> str:
    """What the person reads at the end: verdicts, contact sheets, what the users got, and how to go on."""
    lines = []
    for one in finished:
        style = "green" if one.result.end == "promoted" else "red"
        lines.append(f"\n[bold]demo/{one.denoiser}[/]  [{style}]{one.result.end}[/] after {one.result.seconds:.0f} s")
        lines += [f"  {escape(text)}" for text in one.result.messages]
        lines.append(f"  stable left, canary right: [bold]{one.path}[/]")
    lines.append(f"\nUsers meanwhile: {escape(str(stats))}.")
    where = f"-n {settings.namespace}"
    lines.append(f"\nGo on:\n  kubectl {where} describe dp shapes")
    lines.append(f"  .venv/bin/diffusion-operator rollout status shapes {where}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
