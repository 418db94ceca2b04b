"""Whole canaries, played from the first pod to the end; and random orders of everything that can happen."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.operator.rollout_simulation import STRATEGY, Target, World

if TYPE_CHECKING:
    from diffusion_operator.rollout import Strategy

# Ten thousand orders in all; in parts, so that several processes can share them.
PARTS, ORDERS, EVENTS = 10, 1_000, 20


def world(*names: str, replicas: int = 4, strategy: Strategy = STRATEGY) -> World:
    """A world whose targets serve their first revision."""
    made = World({name: Target(replicas, desired=f"{name}-1") for name in names or ("cpu",)}, strategy)
    run(made)
    assert all(item.stable == item.desired for item in made.targets.values())
    return made


def run(made: World, passes: int = 40, seconds: float = 30) -> list[tuple[int, int]]:
    """Time goes on and pods start; returns the first target's share and number of canary pods, each once."""
    seen: list[tuple[int, int]] = []
    for _ in range(passes):
        made.look()
        made.settle_pods()
        first = next(iter(made.targets.values()))
        pods = first.deployments[first.canary].replicas if first.canary in first.deployments else 0
        if (first.weight, pods) not in seen[-1:]:
            seen.append((first.weight, pods))
        made.time += seconds
    return seen


def want(made: World, number: int) -> None:
    for name, item in made.targets.items():
        item.desired = f"{name}-{number}"


def note(made: World, name: str = "cpu") -> tuple[str, str]:
    """Phase of the desired revision and why."""
    target = made.targets[name]
    found = target.deployments[target.desired or ""].note
    assert found is not None
    return found.phase, found.verdict.reason if found.verdict is not None else ""


def test_a_good_one_takes_its_steps_and_the_old_one_stays_to_go_back_to() -> None:
    made = world()
    want(made, 2)
    assert run(made) == [(0, 0), (0, 1), (10, 1), (10, 4), (50, 4), (0, 0)]
    target = made.targets["cpu"]
    assert target.stable == "cpu-2"
    assert {name: item.replicas for name, item in target.deployments.items()} == {"cpu-1": 0, "cpu-2": 4}
    assert {item.note.phase for item in target.deployments.values() if item.note} == {"Served"}


def test_with_a_gateway_a_small_share_needs_few_pods() -> None:
    made = world(strategy=replace(STRATEGY, by_pods=False, weights=(5, 50, 90), pauses=(60, 60, 60)))
    want(made, 2)
    assert run(made) == [(0, 0), (0, 1), (5, 1), (5, 2), (50, 2), (50, 4), (90, 4), (0, 0)]


def test_a_step_is_held_at_least_as_long_as_its_pause() -> None:
    made = world()
    want(made, 2)
    held = 0
    for _ in range(200):
        made.look()
        made.settle_pods()
        made.time += 1
        held += made.targets["cpu"].weight == 10
    assert 60 <= held <= 65


@pytest.mark.parametrize("weight", [0, 10, 50])
def test_a_bad_one_is_taken_back_and_not_tried_again(weight: int) -> None:
    made = world("cpu", "l4")
    want(made, 2)
    while made.targets["cpu"].weight < weight:
        run(made, 1)
    made.bad.add("l4-2")
    run(made)
    for name, target in made.targets.items():
        assert (target.stable, target.weight) == (f"{name}-1", 0)
        assert target.deployments[f"{name}-2"].replicas == 0
        assert note(made, name) == ("Rejected", "ErrorRatio")
    want(made, 3)
    run(made)
    for name, target in made.targets.items():
        assert target.stable == f"{name}-3"
        assert sorted(target.deployments) == [f"{name}-1", f"{name}-3"]


def test_silence_never_promotes() -> None:
    made = world()
    want(made, 2)
    made.metrics = False
    run(made)
    assert note(made) == ("Rejected", "Inconclusive")
    assert made.targets["cpu"].stable == "cpu-1"


def test_pods_that_never_get_ready_are_given_up() -> None:
    made = world("cpu", "l4")
    want(made, 2)
    for _ in range(40):
        made.look()
        made.settle_pods()
        if "l4-2" in made.targets["l4"].deployments:
            made.targets["l4"].deployments["l4-2"].ready = 0
        made.time += 30
        assert made.targets["cpu"].weight == 0
    assert note(made) == ("Rejected", "NotReady")


def test_pods_that_are_lost_again_and_again_are_given_up() -> None:
    made = world()
    want(made, 2)
    for _ in range(40):
        run(made, 1)
        if made.targets["cpu"].weight == 10:
            made.targets["cpu"].deployments["cpu-2"].ready = 0
    assert note(made) == ("Rejected", "NotReady")


def test_no_target_starts_before_all_are_built() -> None:
    made = world("cpu", "l4")
    made.targets["cpu"].desired, made.targets["l4"].desired = "cpu-2", None
    run(made)
    assert list(made.targets["cpu"].deployments) == ["cpu-1"]
    made.targets["l4"].desired = "l4-2"
    run(made)
    assert [target.stable for target in made.targets.values()] == ["cpu-2", "l4-2"]


def test_going_back_to_what_has_served_needs_no_judgement_and_so_does_going_forth_again() -> None:
    made = world()
    want(made, 2)
    run(made)
    made.metrics = False
    for number in (1, 2, 1):
        want(made, number)
        assert {share for share, _ in run(made, 4)} == {0}
        assert made.targets["cpu"].stable == f"cpu-{number}"


def test_no_more_than_the_history_is_kept() -> None:
    made = world()
    for number in range(2, 7):
        want(made, number)
        run(made)
    assert list(made.targets["cpu"].deployments) == ["cpu-4", "cpu-5", "cpu-6"]


def test_promoted_by_hand_it_does_not_wait_for_a_verdict() -> None:
    made = world()
    want(made, 2)
    made.metrics = False
    made.promote = "cpu-2"
    run(made, 6)
    assert made.targets["cpu"].stable == "cpu-2"


def test_aborted_by_hand_it_is_taken_back() -> None:
    made = world()
    want(made, 2)
    run(made, 5)
    assert made.targets["cpu"].weight == 10
    made.abort = "cpu-2"
    run(made, 5)
    assert (made.targets["cpu"].weight, note(made)) == (0, ("Rejected", "Aborted"))


def test_a_spec_that_is_edited_meanwhile_starts_from_the_beginning() -> None:
    made = world()
    want(made, 2)
    run(made, 5)
    want(made, 3)
    made.look()
    target = made.targets["cpu"]
    assert (target.stable, target.share("cpu-2"), target.share("cpu-3")) == ("cpu-1", 0, 0)
    run(made)
    assert target.stable == "cpu-3"
    assert "cpu-2" not in target.deployments


def test_without_a_stable_pod_a_bad_canary_keeps_its_share_until_there_is_one() -> None:
    made = world()
    want(made, 2)
    run(made, 5)
    target = made.targets["cpu"]
    target.deployments["cpu-1"].ready = 0
    made.bad.add("cpu-2")
    made.look()
    assert (target.canary, target.weight) == ("cpu-2", 10)
    run(made, 3)
    assert (target.weight, target.deployments["cpu-2"].replicas) == (0, 0)


def test_a_first_revision_is_not_judged() -> None:
    made = World({"cpu": Target(2, desired="cpu-1")}, metrics=False)
    run(made, 3)
    assert made.targets["cpu"].stable == "cpu-1"


def happen(made: World, dice: random.Random, names: list[str]) -> None:
    """One random event."""
    target = made.targets[dice.choice(names)]
    event = dice.randrange(16)
    if event == 0:
        want(made, dice.randrange(1, 7))
    elif event == 1:
        target.desired = None if dice.random() < 0.5 else f"{names[0]}-{dice.randrange(1, 7)}"
    elif event in {7, 8, 9}:
        ask(made, dice, event, target)
    elif event == 2:
        made.metrics = not made.metrics
    elif event in {3, 4, 5} and target.deployments:
        found = target.deployments[dice.choice(list(target.deployments))]
        found.ready = dice.randint(0, found.replicas)
        found.proven = found.proven or 0 < found.ready == found.replicas
    elif event == 6 and target.stable in target.deployments and dice.random() < 0.5:
        size = dice.randint(1, 6)
        target.replicas = target.deployments[target.stable].replicas = size
    elif event in {10, 11}:
        made.settle_pods()
    else:
        made.time += dice.choice((1, 61, 601))


def ask(made: World, dice: random.Random, event: int, target: Target) -> None:
    """What people ask for by hand."""
    if event == 7 and dice.random() < 0.2:
        made.suspended = not made.suspended
    elif event == 8 and dice.random() < 0.3:
        made.promote = target.desired
    elif event == 9 and dice.random() < 0.3:
        made.abort = target.desired


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_in_whatever_order(part: int) -> None:
    """The writes themselves are checked by the world: see `rollout_world`."""
    dice = random.Random(part)  # noqa: S311 - orders, not secrets
    switched = shared = refused = 0
    for order in range(ORDERS):
        names = ["cpu", "l4"][: 1 + order % 2]
        strategy = replace(STRATEGY, by_pods=dice.random() < 0.5, history=dice.randrange(3))
        made = World({name: Target(dice.randint(1, 4), desired=f"{name}-1") for name in names}, strategy)
        made.bad = {f"{names[-1]}-{dice.randrange(2, 7)}"}
        made.bad_with_traffic = {f"{names[0]}-{dice.randrange(2, 7)}"}
        if order % 4:
            run(made, 3)
        for _ in range(EVENTS):
            happen(made, dice, names)
            # A pass may be cut off after any of its writes: the operator is killed and starts anew.
            made.look(dice.choice((None, None, None, 0, 1, 2, 3)))
            shared += any(item.weight for item in made.targets.values())
        switched += any(item.stable not in {None, f"{name}-1"} for name, item in made.targets.items())
        refused += any(
            item.note and item.note.phase == "Rejected"
            for t in made.targets.values()
            for item in t.deployments.values()
        )
        if order % 10 == 0:
            the_next_good_spec_goes_through(made)
    # The orders reach what they are about.
    assert min(switched, shared, refused) > ORDERS / 20


def the_next_good_spec_goes_through(made: World) -> None:
    made.suspended, made.metrics, made.promote, made.abort = False, True, None, None
    want(made, 99)
    run(made, 30)
    for name, target in made.targets.items():
        assert (target.stable, target.weight) == (f"{name}-99", 0)
        assert target.deployments[f"{name}-99"].replicas == target.replicas
