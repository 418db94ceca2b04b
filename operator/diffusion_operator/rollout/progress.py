"""How far a revision has come: kept as an annotation of its Deployment, so nothing else has to remember it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from diffusion_contract.limits import MAX_ANNOTATION_MESSAGE
from diffusion_operator.analysis.verdict import Outcome, Verdict
from diffusion_operator.conditions import truncated
from diffusion_operator.json_objects import JsonObject, parse_json_object

Phase = Literal["ImageComparison", "Step", "Promoting", "Rejected", "Served", "Yielding"]


@dataclass(frozen=True)
class RolloutProgress:
    """How far a revision has come.

    Attributes:
        phase: of the canary; see `rollout.canary`. Served: it is or was the stable revision. Yielding: it is the stable
            revision and has no pods, since another one needs its GPUs; see `rollout.replacement`.
        step: index of the strategy's step, in phase Step.
        observing: the pods are ready and the weight is live, so the time counts and the verdict is about this phase.
        readiness_losses: how often all of its ready pods were lost.
        was_stable: it has had all of the traffic before, so it needs no verdict to get it again.
        verdict: of the last phase that ended.
    """

    phase: Phase
    step: int = 0
    observing: bool = False
    readiness_losses: int = 0
    was_stable: bool = False
    verdict: Verdict | None = None


def serialize(progress: RolloutProgress, now: datetime) -> str:
    """The annotation's JSON, with the time from which the progress's age counts."""
    document: JsonObject = {
        "phase": progress.phase,
        "step": progress.step,
        "since": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observing": progress.observing,
        "readinessLosses": progress.readiness_losses,
        "served": progress.was_stable,
    }
    if progress.verdict is not None:
        document["verdict"] = {
            "passed": progress.verdict.outcome == "Pass",
            "reason": progress.verdict.reason,
            "message": truncated(progress.verdict.message, MAX_ANNOTATION_MESSAGE),
            "numbers": dict(progress.verdict.numbers),
        }
    return json.dumps(document, separators=(",", ":"))


def parse_progress(annotation: str | None) -> tuple[RolloutProgress | None, datetime]:
    """The progress and since when it is so; None and the epoch when the annotation is missing or unreadable."""
    epoch = datetime.fromtimestamp(0, UTC)
    document = parse_json_object(annotation)
    try:
        since = datetime.fromisoformat(document["since"]) if document.get("since") else epoch
        return _progress(document), since
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, epoch


def _progress(document: JsonObject) -> RolloutProgress | None:
    if document.get("phase") not in get_args(Phase):
        return None
    return RolloutProgress(
        phase=document["phase"],
        step=int(document.get("step", 0)),
        observing=bool(document.get("observing")),
        readiness_losses=int(document.get("readinessLosses", 0)),
        was_stable=bool(document.get("served")),
        verdict=_verdict(document.get("verdict")),
    )


def _verdict(document: JsonObject | None) -> Verdict | None:
    if document is None:
        return None
    numbers = {str(name): float(value) for name, value in document.get("numbers", {}).items()}
    outcome: Outcome = "Pass" if document["passed"] else "Fail"
    return Verdict(outcome, str(document["reason"]), str(document["message"]), numbers)
