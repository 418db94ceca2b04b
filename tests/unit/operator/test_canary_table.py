"""One ordinary canary from beginning to end, step by step: 4 pods, steps of 10 % and 50 %, a pause of 60 s each.

Every row is one reconcile: what is observed, and what is decided. The phases and transitions are described in
`diffusion_operator.rollout.canary`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.rollout.decision import decide_rollout
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutObservation, RolloutState, Strategy

STRATEGY = Strategy(is_canary=True, weights=(10, 50), pauses=(60, 60), deadline=600, progress_deadline=600, history=1)
OLD = RevisionState("old", replicas=4, ready=4, was_available=True, progress=RolloutProgress("Served", was_stable=True))
NEW = RevisionState("new", replicas=0, ready=0, was_available=False)
PASS = Verdict("Pass", "Passed", "as good as the stable revision")
WAIT = Verdict("Inconclusive", "Inconclusive", "3 of 20 requests that are needed")


@dataclass(frozen=True)
class Row:
    """One reconcile: ready pods of the canary, seconds in this phase and verdict -> what is decided."""

    observed: str
    ready: int
    seconds: int
    verdict: Verdict
    phase: str
    pods: int
    weight: int
    stable: str = "old"


# fmt: off
TABLE = (
    #   observed                                  ready  age  verdict   -> phase                      pods  weight
    Row("the new revision is built",                  0,   0, WAIT,        "starts ImageComparison",     1,  0),
    Row("its pod starts",                             0,  10, WAIT,        "starts ImageComparison",     1,  0),
    Row("its pod is ready",                           1,  20, WAIT,        "observes ImageComparison",   1,  0),
    Row("the comparison runs",                        1,  15, WAIT,        "observes ImageComparison",   1,  0),
    Row("the images are alike",                       1,  30, PASS,        "starts Step 1",              1, 10),
    Row("10 % is live",                               1,   5, WAIT,        "observes Step 1",            1, 10),
    Row("too few requests",                           1,  30, WAIT,        "observes Step 1",            1, 10),
    Row("good, but the pause is not over",            1,  59, PASS,        "observes Step 1",            1, 10),
    Row("good at the end of the pause",               1,  60, PASS,        "starts Step 2",              4, 10),
    Row("more pods start, the share waits",           3,  10, WAIT,        "starts Step 2",              4, 10),
    Row("enough pods for the larger share",           4,  20, WAIT,        "starts Step 2",              4, 50),
    Row("50 % is live",                               4,  25, WAIT,        "observes Step 2",            4, 50),
    Row("good at the end of the last pause",          4,  60, PASS,        "starts Promoting",           4,  0, "new"),
)
# fmt: on


def decide(new: RevisionState, weight: int, verdict: Verdict) -> RolloutDecision:
    state = RolloutState("new", "old", (OLD, new), replicas=4, weights={"new": weight} if weight else {})
    return decide_rollout(STRATEGY, RolloutObservation({"cpu": state}, {"cpu": verdict}))["cpu"]


def phase(progress: RolloutProgress) -> str:
    name = f"Step {progress.step + 1}" if progress.phase == "Step" else progress.phase
    return f"{'observes' if progress.observing else 'starts'} {name}"


def test_every_step_of_an_ordinary_canary() -> None:
    new, weight = NEW, 0
    for row in TABLE:
        new = replace(new, ready=row.ready, phase_seconds=float(row.seconds))
        decision = decide(new, weight, row.verdict)
        progress = decision.progress_updates.get("new", new.progress)
        assert progress is not None
        decided = (phase(progress), decision.desired_replicas, decision.weight, decision.stable)
        assert decided == (row.phase, row.pods, row.weight, row.stable), row.observed
        assert not decision.replica_changes, "the stable revision keeps its pods until the canary is promoted"
        new, weight = replace(new, replicas=decision.desired_replicas or 0, progress=progress), decision.weight


def test_after_the_promotion_the_old_revision_stays_without_pods_to_roll_back_to() -> None:
    promoted = replace(NEW, replicas=4, ready=4, was_available=True, progress=RolloutProgress("Promoting"))
    state = RolloutState("new", "new", (OLD, promoted), replicas=4)
    decision = decide_rollout(STRATEGY, RolloutObservation({"cpu": state}))["cpu"]
    assert (decision.replica_changes, decision.removals) == ({"old": 0}, ())
    assert decision.progress_updates["new"].phase == "Served"
