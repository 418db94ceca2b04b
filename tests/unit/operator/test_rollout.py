"""Traffic never goes to what is not ready, and what serves is never taken away before."""

import itertools

import pytest

from diffusion_operator.rollout.rolling import decide
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutState

OLD = RevisionState("old", replicas=2, ready=2, was_available=True)
OLD_BROKEN = RevisionState("old", replicas=2, ready=0, was_available=False)
OLD_DOWN = RevisionState("old", replicas=2, ready=0, was_available=True)
NEW_STARTING = RevisionState("new", replicas=2, ready=1, was_available=False)
NEW = RevisionState("new", replicas=2, ready=2, was_available=True)
OTHER = RevisionState("other", replicas=2, ready=1, was_available=False)

TABLE: dict[str, tuple[RolloutState, RolloutDecision]] = {
    "nothing is built yet": (
        RolloutState(None, None, (), 2),
        RolloutDecision(None, None, "Waiting"),
    ),
    "the first revision gets its Service at once": (
        RolloutState("new", None, (), 2),
        RolloutDecision("new", 2, "Starting"),
    ),
    "the first revision starts": (
        RolloutState("new", "new", (NEW_STARTING,), 2),
        RolloutDecision("new", 2, "Starting"),
    ),
    "the first revision serves": (
        RolloutState("new", "new", (NEW,), 2),
        RolloutDecision("new", 2, "Complete"),
    ),
    "while the next is built the old one serves": (
        RolloutState(None, "old", (OLD,), 2),
        RolloutDecision("old", None, "Waiting"),
    ),
    "what an older spec started without traffic goes": (
        RolloutState(None, "old", (OLD, OTHER), 2),
        RolloutDecision("old", None, "Waiting", removals=("other",)),
    ),
    "the next revision is created beside the old one": (
        RolloutState("new", "old", (OLD,), 2),
        RolloutDecision("old", 2, "Starting"),
    ),
    "half ready is not ready": (
        RolloutState("new", "old", (OLD, NEW_STARTING), 2),
        RolloutDecision("old", 2, "Starting"),
    ),
    "traffic moves and the old one stays until that was seen": (
        RolloutState("new", "old", (OLD, NEW), 2),
        RolloutDecision("new", 2, "Removing"),
    ),
    "then the old one goes": (
        RolloutState("new", "new", (OLD, NEW), 2),
        RolloutDecision("new", 2, "Removing", removals=("old",)),
    ),
    "a superseded candidate goes at once": (
        RolloutState("new", "old", (OLD, OTHER), 2),
        RolloutDecision("old", 2, "Starting", removals=("other",)),
    ),
    "a stable revision that never worked makes room": (
        RolloutState("new", "old", (OLD_BROKEN,), 2),
        RolloutDecision("old", 2, "Starting", removals=("old",)),
    ),
    "a stable revision that is down for a moment stays": (
        RolloutState("new", "old", (OLD_DOWN, NEW_STARTING), 2),
        RolloutDecision("old", 2, "Starting"),
    ),
    "a stable revision that is gone loses its Service": (
        RolloutState("new", "old", (NEW_STARTING,), 2),
        RolloutDecision("new", 2, "Starting"),
    ),
    "suspended: everything has no pods": (
        RolloutState(None, "old", (OLD,), 2, suspended=True),
        RolloutDecision("old", None, "Suspended", replica_changes={"old": 0}),
    ),
    "suspended: a switch costs nobody anything": (
        RolloutState("new", "old", (OLD,), 2, suspended=True),
        RolloutDecision("new", 0, "Suspended", replica_changes={"old": 0}),
    ),
    "resumed while the next is built: the old one gets its pods back": (
        RolloutState(None, "old", (RevisionState("old", 0, 0, was_available=True),), 2),
        RolloutDecision("old", None, "Waiting", replica_changes={"old": 2}),
    ),
    "a lost pod of a serving revision is no rollout": (
        RolloutState("new", "new", (RevisionState("new", 2, 1, was_available=True),), 2),
        RolloutDecision("new", 2, "Complete"),
    ),
}


@pytest.mark.parametrize(("state", "decision"), TABLE.values(), ids=TABLE.keys())
def test_decide(state: RolloutState, decision: RolloutDecision) -> None:
    assert decide(state) == decision


def every_state() -> list[RolloutState]:
    counts = [(0, 0, False), (2, 0, True), (2, 1, False), (2, 2, True)]
    revisions = [
        tuple(RevisionState(name, *numbers) for name, numbers in zip(names, counts_by_revision, strict=True))
        for names in (("a",), ("a", "b"), ("a", "b", "c"))
        for counts_by_revision in itertools.product(counts, repeat=len(names))
    ]
    wishes = itertools.product(("a", "b", "c", "new", None), ("a", "b", "c", "gone", None), revisions)
    return [RolloutState(desired, stable, items, 2) for desired, stable, items in wishes]


def test_in_every_state_what_serves_goes_on_serving() -> None:
    for state in every_state():
        decision, serving = decide(state), state.find(state.stable)
        if serving is not None and serving.ready > 0 and decision.stable != state.stable:
            taking_over = state.find(decision.stable)
            assert taking_over is not None, state
            assert taking_over.ready >= state.replicas, state
        if serving is not None and serving.ready > 0 and state.desired != state.stable:
            assert state.stable not in decision.removals, state
        assert decision.stable not in decision.removals or (serving is not None and serving.ready == 0), state


def test_every_rollout_ends() -> None:
    """Plays the controllers: whatever the beginning, the desired revision serves alone within a few steps."""
    for state in every_state():
        if state.desired is None:
            continue
        current = state
        for _ in range(8):
            current = apply_decision(current, decide(current))
        assert current.stable == current.desired
        assert [item.name for item in current.revisions] == [current.desired]
        assert decide(current).status == "Complete"


def apply_decision(state: RolloutState, decision: RolloutDecision) -> RolloutState:
    """The state after the decision was carried out and the pods became ready."""
    remaining = {item.name: item for item in state.revisions if item.name not in decision.removals}
    if state.desired is not None and decision.desired_replicas is not None:
        is_existing = state.desired in remaining
        ready = decision.desired_replicas if is_existing else 0
        remaining[state.desired] = RevisionState(
            state.desired, decision.desired_replicas, ready, was_available=is_existing
        )
    return RolloutState(state.desired, decision.stable, tuple(remaining.values()), state.replicas)
