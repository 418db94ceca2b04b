"""How far a revision has come, as it is written on its Deployment."""

import json
from datetime import datetime
from typing import Any, get_args

from diffusion_operator import naming
from diffusion_operator.analysis import Outcome, Verdict
from diffusion_operator.conditions import shortened
from diffusion_operator.plan.jobs import parse_result, parse_time, rfc3339
from diffusion_operator.rollout import Note
from diffusion_operator.rollout.state import Phase

JsonObject = dict[str, Any]
MAX_MESSAGE = 900


def written(note: Note, now: datetime) -> str:
    """The note as JSON, with the time from which its age counts."""
    document: JsonObject = {"phase": note.phase, "step": note.step, "since": rfc3339(now), "settled": note.settled}
    document |= {"losses": note.losses, "served": note.served}
    if note.verdict is not None:
        document["verdict"] = {
            "passed": note.verdict.outcome == "Pass",
            "reason": note.verdict.reason,
            "message": shortened(note.verdict.message, MAX_MESSAGE),
            "numbers": dict(note.verdict.numbers),
        }
    return json.dumps(document, separators=(",", ":"))


def read(deployment: JsonObject) -> tuple[Note | None, datetime]:
    """The Deployment's note and since when; no note when nobody can read it."""
    document = parse_result(deployment["metadata"].get("annotations", {}).get(naming.ROLLOUT))
    try:
        return _note(document), parse_time(document.get("since"))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, parse_time(None)


def _note(document: JsonObject) -> Note | None:
    if document.get("phase") not in get_args(Phase):
        return None
    return Note(
        phase=document["phase"],
        step=int(document.get("step", 0)),
        settled=bool(document.get("settled")),
        losses=int(document.get("losses", 0)),
        served=bool(document.get("served")),
        verdict=_verdict(document.get("verdict")),
    )


def _verdict(document: JsonObject | None) -> Verdict | None:
    if document is None:
        return None
    numbers = {str(name): float(value) for name, value in document.get("numbers", {}).items()}
    outcome: Outcome = "Pass" if document["passed"] else "Fail"
    return Verdict(outcome, str(document["reason"]), str(document["message"]), numbers)
