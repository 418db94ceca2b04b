"""A canary of the demo's pipeline: applied, followed until it is promoted or rejected, with its contact sheet."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from diffusion_operator.conditions import Reason
from examples.demo_hub import revision_of
from examples.demo_support.board import Row
from examples.demo_support.errors import DemoError
from examples.demo_support.follow import ProblemTimer, condition, problem_of, rows
from examples.demo_support.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.demo_support.board import Board
    from examples.demo_support.commands import Tools
    from examples.demo_support.follow import Status

CANARY_FILE: Final = ROOT / "examples" / "pipeline-canary.yaml"
DENOISERS: Final = ROOT / "examples" / "demo-unets"
DEADLINE_SECONDS: Final = 1800.0
_POLL_SECONDS: Final = 1.0
_STATES: Final = {"Pass": "Ready", "Fail": "Failed", "Inconclusive": "Running"}
# What a canary has to do with: the rest is shared with the stable revision.
_BUILDS: Final = ("denoiser", "assemble")

CanaryEnd = Literal["promoted", "rejected"]


@dataclass(frozen=True)
class Place:
    """Which pipeline."""

    tools: Tools
    name: str
    namespace: str

    def get(self) -> dict[str, Any]:
        """The DiffusionPipeline as it is now."""
        return self.tools.kubectl_json("get", "diffusionpipelines", self.name, "-n", self.namespace)


@dataclass(frozen=True)
class Result:
    """How a canary ended.

    Attributes:
        end: what became of it.
        seconds: since it was looked at first.
        messages: verdicts, the last one of each kind.
        sheet: images of both revisions side by side, PNG; empty where there are none.
    """

    end: CanaryEnd
    seconds: float
    messages: tuple[str, ...]
    sheet: bytes


def document(denoiser: str) -> dict[str, Any]:
    """examples/pipeline-canary.yaml with one of examples/demo-unets.

    Raises:
        DemoError: The file names another revision than the denoiser in this checkout has.
    """
    body: dict[str, Any] = yaml.safe_load(CANARY_FILE.read_text())
    source = body["spec"]["model"]["components"]["denoiser"]["source"]["huggingFace"]
    folder = DENOISERS / source["repo"].partition("/")[2]
    if revision_of(folder) != source["revision"]:
        raise DemoError(f"{CANARY_FILE} names another revision than {folder} has: write {revision_of(folder)} into it.")
    source |= {"repo": f"demo/{denoiser}", "revision": revision_of(DENOISERS / denoiser)}
    return body


def apply(tools: Tools, namespace: str, denoiser: str) -> Place:
    """Apply it with this denoiser."""
    body = document(denoiser)
    tools.output("kubectl", "apply", "-n", namespace, "-f", "-", stdin=json.dumps(body), what="kubectl apply")
    return Place(tools, str(body["metadata"]["name"]), namespace)


def canary_rows(status: Status) -> Iterator[Row]:
    """What is known about the canary of each target, as rows."""
    for target in status.get("targets", []):
        name, comparison, analysis = target["name"], target.get("imageComparison") or {}, target.get("analysis") or {}
        phase, message = target.get("phase"), analysis.get("message", "")
        state = _STATES.get(analysis.get("verdict", ""), "Running")
        about_images = phase == "ImageComparison" or analysis.get("reason") == "ImageQuality"
        if comparison or phase == "ImageComparison":
            comparison_state = state if about_images and state == "Failed" else comparison.get("state", "Waiting")
            yield Row(name=f"golden images · {name}", state=comparison_state, detail=message if about_images else "")
        if phase in {"Step", "Promoting", "Rejected"} and not about_images:
            yield Row(name=f"requests · {name}", state=state, detail=f"{target.get('canaryWeight') or 0} % · {message}")


def follow(place: Place, board: Board, extra_rows: Iterator[Row] | None = None) -> Result:
    """Show the canary of the present spec until it is promoted or rejected.

    Args:
        place: the pipeline.
        board: where it is shown.
        extra_rows: one more row for every poll.

    Raises:
        DemoError: It stays wrong for another reason, or takes too long.
    """
    began, sheet, messages = time.monotonic(), b"", dict[str, str]()
    timer = ProblemTimer(
        f"The canary of {place.name} does not get on. ", f"Look closer: kubectl describe dp {place.name}"
    )
    while time.monotonic() - began < DEADLINE_SECONDS:
        pipeline = place.get()
        status, generation = pipeline.get("status", {}), pipeline.get("metadata", {}).get("generation", 0)
        board.update([*_build_rows(status), *canary_rows(status), *([next(extra_rows)] if extra_rows else [])])
        if status.get("observedGeneration") == generation:
            sheet = sheet or contact_sheet(place, status)
            messages |= _messages_by_phase(status)
        end = final_result(status, generation)
        if end is not None:
            return Result(end, time.monotonic() - began, tuple(messages.values()), sheet)
        if problem := problem_of(status, generation):
            timer.check(problem, time.monotonic())
        else:
            timer.reset()
        time.sleep(_POLL_SECONDS)
    raise DemoError(f"The canary of {place.name} was neither promoted nor rejected in {DEADLINE_SECONDS:.0f} s.")


def final_result(status: Status, generation: int) -> CanaryEnd | None:
    """What became of the canary of this generation; None while it is on its way."""
    if condition(status, "RolloutComplete", generation).get("reason") == Reason.CANARY_REJECTED:
        return "rejected"
    return "promoted" if condition(status, "Ready", generation).get("status") == "True" else None


def contact_sheet(place: Place, status: Status) -> bytes:
    """The images of both revisions, out of the store through a pod that serves from it; empty before there are any.

    They are named in the status from the comparison on; a canary that was rejected keeps them.
    """
    for target in status.get("targets", []):
        digest = (target.get("imageComparison") or {}).get("digest")
        if digest:
            pod = f"deployment/{place.name}-{target['name']}-{target['stableRevision']}"
            sheet = f"/store/comparisons/{digest}/sheet.png"
            return place.tools.data("kubectl", "exec", "-n", place.namespace, pod, "-c", "triton", "--", "cat", sheet)
    return b""


def save(result: Result, path: Path) -> None:
    """Write the contact sheet; DemoError where there is none."""
    if not result.sheet.startswith(b"\x89PNG"):
        raise DemoError("The contact sheet could not be read out of the store: see status.targets[].imageComparison.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(result.sheet)


def _build_rows(status: Status) -> list[Row]:
    return [row for row in rows(status, datetime.now(UTC)) if any(part in row.name for part in _BUILDS)]


def _messages_by_phase(status: Status) -> dict[str, str]:
    messages = {}
    for target in status.get("targets", []):
        analysis, phase = target.get("analysis") or {}, target.get("phase")
        if phase and analysis.get("verdict") in {"Pass", "Fail"}:
            messages[analysis["reason"] if phase == "Rejected" else phase] = (
                f"{analysis['reason']}: {analysis['message']}"
            )
    return messages
