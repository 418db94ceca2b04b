"""What the person reads at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.demo_support.follow import BuildSummary
    from examples.demo_support.image import GeneratedImage
    from examples.demo_support.settings import Settings


def summary(settings: Settings, name: str, build_summary: BuildSummary, images: Sequence[GeneratedImage]) -> str:
    """Return the image's path, the times, and how to go on."""
    (best,) = (image for image in images if image.steps == settings.steps)
    each = " · ".join(f"{image.seconds:.2f} s with {image.steps} steps" for image in images)
    verdict_line = f"{best.verdict}\n" if best.verdict else ""
    go_on = "\n".join(f"  {line}" for line in _go_on(settings, name))
    return (
        f"\n[bold green]{best.path}[/]  “{escape(settings.prompt)}”, seed {settings.seed}, {settings.steps} steps, "
        f"{settings.size} pixels\n{verdict_line}\n"
        f"  engines          {build_summary.engines_seconds:.1f} s after the apply: "
        f"{build_summary.built} built, {build_summary.reused} reused\n"
        f"  pipeline Ready   {build_summary.ready_seconds:.1f} s after the apply\n"
        f"  one image        {each}\n\n"
        f"Go on:\n{go_on}\n"
    )


def _go_on(settings: Settings, name: str) -> list[str]:
    kubectl = f"kubectl -n {settings.namespace}"
    euler = '{"spec":{"scheduler":{"type":"Euler"}}}'
    lines = [
        f"{kubectl} get dp,jobs,deployments,pods,services",
        f"{kubectl} describe dp {name}",
        f"{kubectl} port-forward service/{name} 8000 &",
        '.venv/bin/python examples/client.py "a green star on a white background" --steps 20 --out star.png',
        f"{kubectl} patch dp {name} --type merge -p '{euler}'  # builds no engine",
        'PROMPT="a yellow square on a black background" SEED=3 STEPS=4 make demo',
    ]
    if settings.kubeconfig:
        return lines
    first = 'eval "$(.venv/bin/python -m tools.devcluster env)"  # kubectl and helm'
    return [first, *lines, "make cluster-down  # stops the cluster; the cache stays"]
