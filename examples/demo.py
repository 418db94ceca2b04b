#!/usr/bin/env python3
"""`make demo`: from nothing to a picture that came out of a real Triton in a real Kubernetes.

Starts the embedded cluster (or uses the one that KUBECONFIG names), brings images, operator and a model hub
into it, applies examples/pipeline.yaml, shows what the operator does, and asks the server for a picture.
Every step leaves alone what is there already: run it again after a change or after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.markup import escape

from examples.client import Request
from examples.demo_support.board import Board
from examples.demo_support.cluster import Cluster, bring_up, own_kubeconfig
from examples.demo_support.commands import Tools
from examples.demo_support.errors import DemoError
from examples.demo_support.follow import Outcome, wait_until_served
from examples.demo_support.install import (
    Images,
    apply_pipeline,
    build_images,
    install_hub,
    install_operator,
    prepare_images,
)
from examples.demo_support.picture import Picture, draw, port_forward
from examples.demo_support.report import summary
from examples.demo_support.settings import GUIDANCE, TIERS, Settings, from_environment


def main() -> int:
    """Run the demo; 0 when the picture is there, 1 with one readable block when not, 130 after Ctrl-C."""
    console = Console(highlight=False)
    try:
        settings = from_environment(os.environ, own_kubeconfig())
        with Board(console) as board:
            made = serve(settings, board)
            pictures = _pictures(settings, made.cluster, made.name, board)
    except DemoError as error:
        console.print(f"\n[bold red]The demo stopped.[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n[yellow]Stopped. Run it again: it goes on from here.[/]")
        return 130
    console.print(summary(settings, made.name, made.outcome, pictures), soft_wrap=True)
    return 0


@dataclass(frozen=True)
class Served:
    """The demo's pipeline, ready.

    Attributes:
        cluster: that it is in.
        images: name to reference.
        name: of the pipeline.
        outcome: how long it took.
    """

    cluster: Cluster
    images: Images
    name: str
    outcome: Outcome


def serve(settings: Settings, board: Board) -> Served:
    """From nothing to the served pipeline.

    Raises:
        DemoError: Something cannot be built, started or reached.
    """
    cluster, images = _cluster_and_images(settings, board)
    with ThreadPoolExecutor(max_workers=2) as together:
        parts = [together.submit(part, settings, cluster, images, board) for part in (_hub, _operator)]
        for part in parts:
            part.result()
    since = datetime.now(UTC)
    name = apply_pipeline(cluster.tools, settings.namespace)
    outcome = wait_until_served(cluster.tools, board, name, settings.namespace, since)
    return Served(cluster, images, name, outcome)


def _cluster_and_images(settings: Settings, board: Board) -> tuple[Cluster, Images]:
    """Start the cluster and build the images side by side: one compiles Go, the other moves files."""
    given = dict(settings.images)
    build = not settings.kubeconfig or bool(settings.registry)
    if build:
        prepare_images()
    with ThreadPoolExecutor(max_workers=1) as beside:
        early = beside.submit(_images, "", board) if build else None
        with board.step("cluster") as tell:
            cluster = bring_up(settings, Tools(), tell)
            tell(cluster.context)
        if early:
            early.result()
    return cluster, ({**_images(cluster.registry, board), **given} if build else given)


def _images(registry: str, board: Board) -> Images:
    with board.step("images: push" if registry else "images: build") as tell:
        images, changed = build_images(registry, tell)
        tell(f"changed: {', '.join(changed)}" if changed else "nothing changed")
    return images


def _hub(settings: Settings, cluster: Cluster, images: Images, board: Board) -> None:
    with board.step("model hub"):
        install_hub(cluster.tools, images["demo-hub"], settings.namespace)


def _operator(settings: Settings, cluster: Cluster, images: Images, board: Board) -> None:
    with board.step("operator"):
        install_operator(cluster.tools, images, settings.namespace)


def _pictures(settings: Settings, cluster: Cluster, name: str, board: Board) -> list[Picture]:
    size = settings.size
    request = Request(prompt=settings.prompt, seed=settings.seed, guidance_scale=GUIDANCE, height=size, width=size)
    pictures = []
    with port_forward(cluster.tools, name, settings.namespace) as url:
        for steps in TIERS:
            path = settings.out / ("demo.png" if steps == settings.steps else f"demo-{steps}-steps.png")
            with board.step(f"picture, {steps} steps") as tell:
                pictures.append(draw(url, steps, request, path))
                tell(f"{path} · {pictures[-1].seconds:.2f} s for one")
    return pictures


if __name__ == "__main__":
    raise SystemExit(main())
