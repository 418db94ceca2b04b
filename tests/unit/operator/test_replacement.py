"""Replacing a revision where there is no GPU for two: it makes room, and comes back when the next one fails."""

import itertools
import random
from dataclasses import replace

import pytest

from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.rollout.progress import RolloutProgress, parse_progress, serialize
from diffusion_operator.rollout.replacement import decide
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutState, Strategy
from diffusion_operator.views.base import parse_time
from tests.support.operator.replacement_simulation import NEW, OLD, GpuNode

STRATEGY = Strategy(progress_deadline=600, history=2, surge=0)
SERVED = RolloutProgress("Served", was_stable=True)
YIELDING = RolloutProgress("Yielding", was_stable=True)
PROMOTING = RolloutProgress("Promoting")
LATE = Verdict("Fail", "NotReady", "Its pods were not ready within 600 seconds (progressDeadline).")
REJECTED = RolloutProgress("Rejected", verdict=LATE)

SERVING = RevisionState("old", replicas=1, ready=1, was_available=True, progress=SERVED)
ABOUT_TO_YIELD = replace(SERVING, progress=YIELDING)
AWAY = RevisionState("old", replicas=0, ready=0, was_available=True, progress=YIELDING)
STARTING = RevisionState("new", replicas=1, ready=0, was_available=False)
PROMOTED = replace(STARTING, progress=PROMOTING, phase_seconds=30)
TOO_LATE = replace(PROMOTED, phase_seconds=600)
READY = replace(PROMOTED, ready=1, was_available=True)
FAILED = replace(STARTING, replicas=0, progress=REJECTED)


def building(old: RevisionState, *, waits: bool = False, fails: bool = False) -> RolloutState:
    return RolloutState(None, "old", (old,), 1, is_building=not fails, waits_for_gpu=waits)


def rolling_out(old: RevisionState, new: RevisionState, *, waits: bool = False) -> RolloutState:
    return RolloutState("new", "old", (old, new), 1, waits_for_gpu=waits)


TABLE: dict[str, tuple[RolloutState, RolloutDecision]] = {
    "there is room for the build": (
        building(SERVING),
        RolloutDecision("old", None, "Waiting"),
    ),
    "there is none: first a mark, then no pods": (
        building(SERVING, waits=True),
        RolloutDecision(
            "old", None, "Waiting", progress_updates={"old": YIELDING}, replica_changes={"old": 0}, yields=True
        ),
    ),
    "cut off between mark and pods": (
        building(ABOUT_TO_YIELD),
        RolloutDecision("old", None, "Waiting", replica_changes={"old": 0}, yields=True),
    ),
    "the build runs": (
        building(AWAY),
        RolloutDecision("old", None, "Waiting", yields=True),
    ),
    "the build fails: the old one comes back": (
        building(AWAY, fails=True),
        RolloutDecision("old", None, "Waiting", replica_changes={"old": 1}, progress_updates={"old": SERVED}),
    ),
    "a failed build takes nothing away": (
        building(SERVING, waits=True, fails=True),
        RolloutDecision("old", None, "Waiting"),
    ),
    "built: the new one is created, the old one stays away": (
        RolloutState("new", "old", (AWAY,), 1),
        RolloutDecision("old", 1, "Starting", yields=True),
    ),
    "there is room for both": (
        rolling_out(SERVING, STARTING),
        RolloutDecision("old", 1, "Starting"),
    ),
    "there is no room for both": (
        rolling_out(SERVING, STARTING, waits=True),
        RolloutDecision(
            "old", 1, "Starting", progress_updates={"old": YIELDING}, replica_changes={"old": 0}, yields=True
        ),
    ),
    "its time counts from when it can get the GPU": (
        rolling_out(AWAY, STARTING),
        RolloutDecision("old", 1, "Starting", progress_updates={"new": PROMOTING}, yields=True),
    ),
    "it starts": (
        rolling_out(AWAY, PROMOTED),
        RolloutDecision("old", 1, "Starting", yields=True),
    ),
    "it is ready and gets the traffic": (
        rolling_out(AWAY, READY),
        RolloutDecision("new", 1, "Removing", progress_updates={"old": SERVED}),
    ),
    "it is not ready in time: the old one comes back": (
        rolling_out(AWAY, TOO_LATE),
        RolloutDecision(
            "old", 0, "Rejected", replica_changes={"old": 1}, progress_updates={"new": REJECTED, "old": SERVED}
        ),
    ),
    "cut off after the rejection": (
        rolling_out(AWAY, replace(TOO_LATE, progress=REJECTED)),
        RolloutDecision("old", 0, "Rejected", replica_changes={"old": 1}, progress_updates={"old": SERVED}),
    ),
    "rejected: it stays so, and nothing is taken away": (
        rolling_out(SERVING, FAILED, waits=True),
        RolloutDecision("old", 0, "Rejected"),
    ),
    "rejected and ready after all: too late": (
        rolling_out(SERVING, replace(READY, progress=REJECTED)),
        RolloutDecision("old", 0, "Rejected"),
    ),
    "the old spec again: the old one comes back": (
        RolloutState("old", "old", (AWAY,), 1),
        RolloutDecision("old", 1, "Starting", progress_updates={"old": SERVED}),
    ),
    "suspended": (
        replace(building(AWAY), suspended=True),
        RolloutDecision("old", None, "Suspended", progress_updates={"old": SERVED}),
    ),
    "the first revision ever has nothing to take away": (
        RolloutState("new", None, (), 1, waits_for_gpu=True),
        RolloutDecision("new", 1, "Starting"),
    ),
}


@pytest.mark.parametrize(("state", "decision"), TABLE.values(), ids=TABLE.keys())
def test_decide(state: RolloutState, decision: RolloutDecision) -> None:
    assert decide(state, STRATEGY) == decision


def test_the_mark_survives_in_an_annotation() -> None:
    now = parse_time("2026-01-01T00:00:00Z")
    assert parse_progress(serialize(YIELDING, now)) == (YIELDING, now)


def finish(node: GpuNode) -> None:
    for _ in range(24):
        node.reconcile()
        node.run_controllers()


def expect_end(node: GpuNode) -> None:
    """The good one serves alone; else the old one does."""
    serving = OLD if node.is_bad or node.fails else NEW
    assert node.stable == serving
    assert node.deployments[serving].ready == 1
    others = [item for name, item in node.deployments.items() if name != serving]
    # A bad one that takes nothing from anybody is tried for ever, as with every RollingUpdate.
    assert all(item.replicas == 0 or (node.gpus > 1 and item.ready == 0) for item in others)


@pytest.mark.parametrize(("is_bad", "fails"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("gpus", [1, 2])
def test_every_rollout_ends_with_one_revision_that_serves(gpus: int, *, is_bad: bool, fails: bool) -> None:
    node = GpuNode(gpus, is_bad=is_bad, fails=fails)
    finish(node)
    expect_end(node)
    # Beside each other where there is room: no client notices anything.
    assert node.interruptions == (1 if gpus == 1 else 0)


@pytest.mark.parametrize(("is_bad", "fails"), [(False, False), (True, False), (False, True)])
def test_a_pass_may_end_after_every_write(*, is_bad: bool, fails: bool) -> None:
    for number, writes in itertools.product(range(14), range(6)):
        node = GpuNode(is_bad=is_bad, fails=fails)
        for count in range(14):
            node.reconcile(writes if count == number else None)
            node.run_controllers()
        finish(node)
        expect_end(node)


def test_many_passes_end_anywhere() -> None:
    for seed in range(300):
        chance = random.Random(seed)  # noqa: S311 - a simulation
        node = GpuNode(chance.choice([1, 1, 2]), is_bad=chance.random() < 0.4, fails=chance.random() < 0.3)
        for _ in range(30):
            node.reconcile(chance.choice([0, 1, 2, 3, None]))
            if chance.random() < 0.6:
                node.run_controllers()
        finish(node)
        expect_end(node)
