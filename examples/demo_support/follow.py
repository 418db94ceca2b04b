"""What the pipeline's status says, as rows; and waiting until it is served."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffusion_operator.conditions import PROGRESS_REASONS, Reason
from examples.demo_support.board import Row
from examples.demo_support.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.demo_support.board import Board
    from examples.demo_support.commands import Tools

# Kubernetes retries much by itself: only what stays wrong this long is told as an error.
PATIENCE_SECONDS = 60.0
DEADLINE_SECONDS = 1800.0
_POLL_SECONDS = 1.0
# The way of a request through the components; others come behind them.
_DATA_FLOW = ("text_encoder", "denoiser", "scheduler_step", "vae_decoder")

_MEGABYTE = 1_000_000

Status = dict[str, Any]


@dataclass(frozen=True)
class BuildSummary:
    """How long it took from the apply, in seconds, and what was really built.

    Attributes:
        engines_seconds: Until all engines were there.
        ready_seconds: Until the pipeline was served.
        built: Engines that were compiled in this run.
        reused: Engines that were there already.
    """

    engines_seconds: float
    ready_seconds: float
    built: int
    reused: int


def rows(status: Status, now: datetime) -> list[Row]:
    """Return one row for the checkpoint, each component's export and engines, and each target."""
    status_rows = [_row("fetch checkpoint", status["source"], now)] if status.get("source") else []
    for name, component in sorted(status.get("components", {}).items(), key=_order):
        status_rows.append(_row(f"export  {name}", component, now))
        status_rows += [
            _row(f"compile {name} · {sku}", one, now) for sku, one in sorted(component.get("skus", {}).items())
        ]
    for target in status.get("targets", []):
        status_rows.append(_row(f"assemble · {target['name']}", target["repository"], now))
        status_rows.append(_serving(target))
    return status_rows


def condition(status: Status, kind: str, generation: int) -> Mapping[str, Any]:
    """Return a condition that was said about this generation; empty where there is none."""
    of_kind = (one for one in status.get("conditions", []) if one["type"] == kind)
    return next((one for one in of_kind if one.get("observedGeneration") == generation), {})


def engines(status: Status, since: datetime) -> tuple[int, int]:
    """Return how many engines were (compiled since then, there already)."""
    all_engines = [one for component in status.get("components", {}).values() for one in component["skus"].values()]
    built = [one for one in all_engines if not one.get("cached") and _started(one) >= since]
    return len(built), len(all_engines) - len(built)


def wait_until_served(tools: Tools, board: Board, name: str, namespace: str, since: datetime) -> BuildSummary:
    """Follow the pipeline until `Ready` is true for its generation.

    Raises:
        DemoError: With the condition's own message where something stays wrong, or at the deadline.
    """
    start = time.monotonic()
    timer = ProblemTimer(f"The pipeline {name} is not served. ", _advice(name, namespace))
    engines_seconds: float | None = None
    while time.monotonic() - start < DEADLINE_SECONDS:
        pipeline = tools.kubectl_json("get", "diffusionpipelines", name, "-n", namespace)
        status, generation = pipeline.get("status", {}), pipeline.get("metadata", {}).get("generation", 0)
        board.update(rows(status, datetime.now(UTC)))
        elapsed = time.monotonic() - start
        if engines_seconds is None and condition(status, "EnginesReady", generation).get("status") == "True":
            engines_seconds = elapsed
        ready = condition(status, "Ready", generation)
        if ready.get("status") == "True":
            return BuildSummary(engines_seconds or elapsed, elapsed, *engines(status, since))
        if problem := problem_of(status, generation):
            timer.check(problem, time.monotonic())
        else:
            timer.reset()
        time.sleep(_POLL_SECONDS)
    raise DemoError(f"The pipeline was not served within {DEADLINE_SECONDS:.0f} s. {_advice(name, namespace)}")


class ProblemTimer:
    """Raises the same problem as an error once it has lasted; what changes is given time anew."""

    def __init__(self, opening: str, advice: str) -> None:
        self._opening = opening
        self._advice = advice
        self._problem = ""
        self._since = 0.0

    def reset(self) -> None:
        """Forget: nothing is wrong."""
        self._problem = ""

    def check(self, problem: str, now: float) -> None:
        """Raise DemoError where this has been wrong for longer than PATIENCE_SECONDS."""
        if problem != self._problem:
            self._problem, self._since = problem, now
        if now - self._since > PATIENCE_SECONDS:
            raise DemoError(f"{self._opening}{problem}\n{self._advice}")


def problem_of(status: Status, generation: int) -> str:
    """Return what is wrong as `Reason: message`; empty where things are only under way."""
    ready = condition(status, "Ready", generation)
    reason = str(ready.get("reason", ""))
    if not reason or reason in PROGRESS_REASONS or ready.get("status") == "True":
        return ""
    # On a small node one build waits for the processors that another one still uses.
    if reason == Reason.UNSCHEDULABLE and "Running" in {row.state for row in rows(status, datetime.now(UTC))}:
        return ""
    return f"{reason}: {ready.get('message', '')}"


def _advice(name: str, namespace: str) -> str:
    return f"Look closer: kubectl -n {namespace} describe dp {name}"


def _order(item: tuple[str, object]) -> tuple[int, str]:
    name = item[0]
    return (_DATA_FLOW.index(name) if name in _DATA_FLOW else len(_DATA_FLOW), name)


def _row(name: str, build: Mapping[str, Any], now: datetime) -> Row:
    seconds = build.get("seconds")
    if build["state"] == "Running" and build.get("startedAt"):
        seconds = max(0.0, (now - _started(build)).total_seconds())
    detail = build.get("message") or ("from the store" if build.get("cached") else _size(build.get("sizeBytes")))
    return Row(name=name, state=build["state"], seconds=seconds, detail=detail)


def _serving(target: Mapping[str, Any]) -> Row:
    ready, desired = target.get("readyReplicas", 0), target.get("replicas", 0)
    state = "Ready" if desired and ready >= desired and not target.get("desiredRevision") else "Waiting"
    detail = target.get("message") or (f"{ready}/{desired} pods · {target.get('url', '')}" if desired else "")
    return Row(name=f"serve · {target['name']}", state=state, detail=detail)


def _started(build: Mapping[str, Any]) -> datetime:
    text = build.get("startedAt")
    return datetime.fromisoformat(text) if text else datetime.fromtimestamp(0, UTC)


def _size(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / _MEGABYTE:.1f} MB" if size >= _MEGABYTE else f"{size / 1e3:.1f} kB"
