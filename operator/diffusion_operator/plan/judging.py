"""What is known about the canaries' quality: pictures by a Job, requests by the servers' metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_contract.spec import Rollout
from diffusion_operator import naming
from diffusion_operator.analysis import Verdict, Window, judge
from diffusion_operator.analysis.verdict import PASSED
from diffusion_operator.plan.actions import Action, KeepResult
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.requests import Requests, Store
from diffusion_operator.plan.steps import Starter, Step, drop, step
from diffusion_operator.rollout import RolloutState
from diffusion_operator.rollout.canary import INCONCLUSIVE, PICTURES
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]
JUDGE = "judge"


def comparisons(
    observed: Observed, states: Mapping[str, RolloutState], store: Store | None, settings: Settings
) -> dict[str, Step]:
    """The Jobs that compare pictures, by target: of every canary whose pods are ready."""
    rollout = observed.spec.rollout
    if rollout is None or rollout.strategy != "Canary" or store is None:
        return {}
    requests, jobs = Requests(observed.spec, store, settings), {item.name: item for item in observed.jobs}
    quality = rollout.analysis.quality.model_dump(mode="json", by_alias=True, exclude_none=True)
    found = {}
    for name, state in states.items():
        if _has_pictures(state):
            urls = {side: _url(observed, name, revision) for side, revision in _sides(state).items()}
            found[name] = step(requests.judge(urls, quality), jobs)
    return found


def actions(
    observed: Observed, states: Mapping[str, RolloutState], wanted: Mapping[str, Step], settings: Settings
) -> Iterator[Action]:
    """Start what is to be compared now, keep what was said, and drop what is about an earlier canary."""
    starter = Starter(observed.owner, settings, observed.now, observed.spec.suspend)
    for name, item in wanted.items():
        move, candidate = starter.action(item), states[name].candidate
        now = candidate is not None and candidate.note is not None and candidate.note.phase == "Pictures"
        if move is not None and (now or isinstance(move, KeepResult)):
            yield move
    names = {item.request.name for item in wanted.values()}
    for view in observed.jobs:
        if view.stage == JUDGE and view.name not in names and not view.terminating:
            yield drop(view, observed.owner)


def verdicts(
    observed: Observed, states: Mapping[str, RolloutState], pictures: Mapping[str, Step]
) -> dict[str, Verdict]:
    """Of the phase that each target's candidate is in; nothing where there is nothing to judge."""
    found: dict[str, Verdict] = {}
    rollout = observed.spec.rollout
    for name, state in states.items():
        note = state.candidate.note if state.candidate is not None else None
        if rollout is None or note is None or not note.settled:
            continue
        if note.phase == "Pictures" and name in pictures:
            found[name] = _of_pictures(pictures[name])
        elif note.phase == "Step":
            found[name] = _of_requests(observed, rollout, name, state)
    return found


def _has_pictures(state: RolloutState) -> bool:
    """From when all pods are ready until the next revision; a rejected one's stay to be looked at."""
    note = state.candidate.note if state.candidate is not None else None
    if note is None or state.stable is None or note.served:
        return False
    return note.phase == "Step" or note.settled or note.phase in {"Promoting", "Rejected"}


def _sides(state: RolloutState) -> dict[str, str]:
    return {"stable": state.stable or "", "canary": state.desired or ""}


def _url(observed: Observed, target: str, revision: str) -> str:
    return naming.url(naming.revision(observed.owner.name, target, revision), observed.owner.namespace)


def _of_pictures(item: Step) -> Verdict:
    view = item.view
    if view is not None and view.failure is not None and view.failure.permanent:
        return Verdict("Fail", INCONCLUSIVE, f"The pictures cannot be compared: {item.failure_text()}")
    if not item.done:
        text = item.failure_text() or "The pictures of both revisions are being compared."
        return Verdict("Inconclusive", INCONCLUSIVE, text)
    result = item.result
    numbers = {
        name: float(result[name]) for name in ("worstPsnr", "worstSsim", "colorShift") if _is_number(result, name)
    }
    message = str(result.get("message", ""))
    if result.get("passed") is True:
        return Verdict("Pass", PASSED, message, numbers)
    return Verdict("Fail", PICTURES, message, numbers)


def _is_number(result: JsonObject, name: str) -> bool:
    return isinstance(result.get(name), int | float)


def _of_requests(observed: Observed, rollout: Rollout, target: str, state: RolloutState) -> Verdict:
    sides = _sides(state)
    windows = {side: observed.windows.get((target, revision), Window()) for side, revision in sides.items()}
    return judge(rollout.analysis, windows["stable"], windows["canary"])
