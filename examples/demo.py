#!/usr/bin/env python3
"""`make demo`: from nothing to an image that came out of a real Triton in a real Kubernetes.

Starts the embedded cluster (or uses the one that KUBECONFIG names), brings images, operator and a model hub
into it, applies examples/pipeline.yaml, shows what the operator does, and asks the server for an image.
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
from examples.demo_support.follow import BuildSummary, wait_until_served
from examples.demo_support.gpu import GPU_NODES, choose_gpu
from examples.demo_support.image import GeneratedImage, generate_image, port_forward
from examples.demo_support.install import (
    Images,
    apply_pipeline,
    build_images,
    install_hub,
    install_operator,
    prepare_images,
)
from examples.demo_support.report import summary
from examples.demo_support.settings import GUIDANCE, TIERS, Settings, from_environment


def main() -> int:
    """Run the demo; 0 when the image is there, 1 with one readable block when not, 130 after Ctrl-C."""
    console = Console(highlight=False)
    try:
        settings = from_environment(os.environ, own_kubeconfig())
        choice = choose_gpu(settings)
        if choice.reason:
            console.print(choice.reason, soft_wrap=True)
        with Board(console) as board:
            served = serve(settings, board, choice.product)
            generated_images = _generate_images(settings, served.cluster, served.name, board)
    except DemoError as error:
        console.print(f"\n[bold red]The demo stopped.[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\n[yellow]Stopped. Run it again: it goes on from here.[/]")
        return 130
    console.print(summary(settings, served.name, served.build_summary, generated_images), soft_wrap=True)
    return 0


@dataclass(frozen=True)
class ServedDemo:
    """The demo's pipeline, ready.

    Attributes:
        cluster: that it is in.
        images: name to reference.
        name: of the pipeline.
        build_summary: how long it took.
    """

    cluster: Cluster
    images: Images
    name: str
    build_summary: BuildSummary


def serve(settings: Settings, board: Board, gpu_product: str = "") -> ServedDemo:
    """From nothing to the served pipeline.

    Args:
        settings: of the demo.
        board: shows the steps.
        gpu_product: of the machine, where the pipeline runs on its GPU; empty for the CPU.

    Raises:
        DemoError: Something cannot be built, started or reached.
    """
    cluster, images = _cluster_and_images(settings, board, on_gpu=bool(gpu_product))
    with ThreadPoolExecutor(max_workers=2) as together:
        parts = [together.submit(part, settings, cluster, images, board) for part in (_hub, _operator)]
        for part in parts:
            part.result()
    since = datetime.now(UTC)
    name = apply_pipeline(cluster.tools, settings.namespace, gpu_product)
    build_summary = wait_until_served(cluster.tools, board, name, settings.namespace, since)
    return ServedDemo(cluster, images, name, build_summary)


def _cluster_and_images(settings: Settings, board: Board, *, on_gpu: bool) -> tuple[Cluster, Images]:
    """Start the cluster and build the images side by side: one compiles Go, the other moves files."""
    set_images = dict(settings.images)
    build = not settings.kubeconfig or bool(settings.registry)
    if build:
        prepare_images()
    with ThreadPoolExecutor(max_workers=1) as beside:
        early = beside.submit(_images, "", board) if build else None
        with board.task("cluster") as set_detail:
            cluster = bring_up(settings, Tools(), set_detail, GPU_NODES if on_gpu else None)
            set_detail(cluster.context)
        if early:
            early.result()
    return cluster, ({**_images(cluster.registry, board), **set_images} if build else set_images)


def _images(registry: str, board: Board) -> Images:
    with board.task("images: push" if registry else "images: build") as set_detail:
        images, changed = build_images(registry, set_detail)
        set_detail(f"changed: {', '.join(changed)}" if changed else "nothing changed")
    return images


def _hub(settings: Settings, cluster: Cluster, images: Images, board: Board) -> None:
    with board.task("model hub"):
        install_hub(cluster.tools, images["demo-hub"], settings.namespace)


def _operator(settings: Settings, cluster: Cluster, images: Images, board: Board) -> None:
    with board.task("operator"):
        install_operator(cluster.tools, images, settings.namespace, settings.tensorrt_images)


def _generate_images(settings: Settings, cluster: Cluster, name: str, board: Board) -> list[GeneratedImage]:
    size = settings.size
    request = Request(prompt=settings.prompt, seed=settings.seed, guidance_scale=GUIDANCE, height=size, width=size)
    images = []
    with port_forward(cluster.tools, name, settings.namespace) as url:
        for steps in TIERS:
            path = settings.out / ("demo.png" if steps == settings.steps else f"demo-{steps}-steps.png")
            with board.task(f"image, {steps} steps") as set_detail:
                images.append(generate_image(url, steps, request, path))
                set_detail(f"{path} · {images[-1].seconds:.2f} s for one")
    return images


if __name__ == "__main__":
    raise SystemExit(main())
