"""Whole canaries, played from the first pod to the end; and random orders of everything that can happen."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.operator.rollout_simulation import STRATEGY, Simulation, Target

if TYPE_CHECKING:
    from diffusion_operator.rollout.state import Strategy

# Ten thousand orders in all; in parts, so that several processes can share them.
PARTS, ORDERS, EVENTS = 10, 1_000, 20


def simulate(*names: str, replicas: int = 4, strategy: Strategy = STRATEGY) -> Simulation:
    """A simulation whose targets serve their first revision."""
    simulation = Simulation({name: Target(replicas, desired=f"{name}-1") for name in names or ("cpu",)}, strategy)
    run(simulation)
    assert all(item.stable == item.desired for item in simulation.targets.values())
    return simulation


def run(simulation: Simulation, passes: int = 40, seconds: float = 30) -> list[tuple[int, int]]:
    """Time goes on and pods start; returns the first target's share and number of canary pods, each once."""
    history: list[tuple[int, int]] = []
    for _ in range(passes):
        simulation.reconcile()
        simulation.settle_pods()
        first = next(iter(simulation.targets.values()))
        pods = first.deployments[first.canary].replicas if first.canary in first.deployments else 0
        if (first.weight, pods) not in history[-1:]:
            history.append((first.weight, pods))
        simulation.time += seconds
    return history


def want(simulation: Simulation, number: int) -> None:
    for name, item in simulation.targets.items():
        item.desired = f"{name}-{number}"


def note(simulation: Simulation, name: str = "cpu") -> tuple[str, str]:
    """Phase of the desired revision and why."""
    target = simulation.targets[name]
    progress = target.deployments[target.desired or ""].progress
    assert progress is not None
    return progress.phase, progress.verdict.reason if progress.verdict is not None else ""


def test_a_good_one_takes_its_steps_and_the_old_one_stays_to_go_back_to() -> None:
    simulation = simulate()
    want(simulation, 2)
    assert run(simulation) == [(0, 0), (0, 1), (10, 1), (10, 4), (50, 4), (0, 0)]
    target = simulation.targets["cpu"]
    assert target.stable == "cpu-2"
    assert {name: item.replicas for name, item in target.deployments.items()} == {"cpu-1": 0, "cpu-2": 4}
    assert {item.progress.phase for item in target.deployments.values() if item.progress} == {"Served"}


def test_with_a_gateway_a_small_share_needs_few_pods() -> None:
    simulation = simulate(strategy=replace(STRATEGY, splits_by_pods=False, weights=(5, 50, 90), pauses=(60, 60, 60)))
    want(simulation, 2)
    assert run(simulation) == [(0, 0), (0, 1), (5, 1), (5, 2), (50, 2), (50, 4), (90, 4), (0, 0)]


def test_a_step_is_held_at_least_as_long_as_its_pause() -> None:
    simulation = simulate()
    want(simulation, 2)
    seconds_at_step = 0
    for _ in range(200):
        simulation.reconcile()
        simulation.settle_pods()
        simulation.time += 1
        seconds_at_step += simulation.targets["cpu"].weight == 10
    assert 60 <= seconds_at_step <= 65


@pytest.mark.parametrize("weight", [0, 10, 50])
def test_a_bad_one_is_taken_back_and_not_tried_again(weight: int) -> None:
    simulation = simulate("cpu", "l4")
    want(simulation, 2)
    while simulation.targets["cpu"].weight < weight:
        run(simulation, 1)
    simulation.bad.add("l4-2")
    run(simulation)
    for name, target in simulation.targets.items():
        assert (target.stable, target.weight) == (f"{name}-1", 0)
        assert target.deployments[f"{name}-2"].replicas == 0
        assert note(simulation, name) == ("Rejected", "ErrorRatio")
    want(simulation, 3)
    run(simulation)
    for name, target in simulation.targets.items():
        assert target.stable == f"{name}-3"
        assert sorted(target.deployments) == [f"{name}-1", f"{name}-3"]


def test_silence_never_promotes() -> None:
    simulation = simulate()
    want(simulation, 2)
    simulation.metrics = False
    run(simulation)
    assert note(simulation) == ("Rejected", "Inconclusive")
    assert simulation.targets["cpu"].stable == "cpu-1"


def test_pods_that_never_get_ready_are_given_up() -> None:
    simulation = simulate("cpu", "l4")
    want(simulation, 2)
    for _ in range(40):
        simulation.reconcile()
        simulation.settle_pods()
        if "l4-2" in simulation.targets["l4"].deployments:
            simulation.targets["l4"].deployments["l4-2"].ready = 0
        simulation.time += 30
        assert simulation.targets["cpu"].weight == 0
    assert note(simulation) == ("Rejected", "NotReady")


def test_pods_that_are_lost_again_and_again_are_given_up() -> None:
    simulation = simulate()
    want(simulation, 2)
    for _ in range(40):
        run(simulation, 1)
        if simulation.targets["cpu"].weight == 10:
            simulation.targets["cpu"].deployments["cpu-2"].ready = 0
    assert note(simulation) == ("Rejected", "NotReady")


def test_no_target_starts_before_all_are_built() -> None:
    simulation = simulate("cpu", "l4")
    simulation.targets["cpu"].desired, simulation.targets["l4"].desired = "cpu-2", None
    run(simulation)
    assert list(simulation.targets["cpu"].deployments) == ["cpu-1"]
    simulation.targets["l4"].desired = "l4-2"
    run(simulation)
    assert [target.stable for target in simulation.targets.values()] == ["cpu-2", "l4-2"]


def test_going_back_to_what_has_served_needs_no_judgement_and_so_does_going_forth_again() -> None:
    simulation = simulate()
    want(simulation, 2)
    run(simulation)
    simulation.metrics = False
    for number in (1, 2, 1):
        want(simulation, number)
        assert {share for share, _ in run(simulation, 4)} == {0}
        assert simulation.targets["cpu"].stable == f"cpu-{number}"


def test_no_more_than_the_history_is_kept() -> None:
    simulation = simulate()
    for number in range(2, 7):
        want(simulation, number)
        run(simulation)
    assert list(simulation.targets["cpu"].deployments) == ["cpu-4", "cpu-5", "cpu-6"]


def test_promoted_by_hand_it_does_not_wait_for_a_verdict() -> None:
    simulation = simulate()
    want(simulation, 2)
    simulation.metrics = False
    simulation.promote = "cpu-2"
    run(simulation, 6)
    assert simulation.targets["cpu"].stable == "cpu-2"


def test_aborted_by_hand_it_is_taken_back() -> None:
    simulation = simulate()
    want(simulation, 2)
    run(simulation, 5)
    assert simulation.targets["cpu"].weight == 10
    simulation.abort = "cpu-2"
    run(simulation, 5)
    assert (simulation.targets["cpu"].weight, note(simulation)) == (0, ("Rejected", "Aborted"))


def test_a_spec_that_is_edited_meanwhile_starts_from_the_beginning() -> None:
    simulation = simulate()
    want(simulation, 2)
    run(simulation, 5)
    want(simulation, 3)
    simulation.reconcile()
    target = simulation.targets["cpu"]
    assert (target.stable, target.share("cpu-2"), target.share("cpu-3")) == ("cpu-1", 0, 0)
    run(simulation)
    assert target.stable == "cpu-3"
    assert "cpu-2" not in target.deployments


def test_without_a_stable_pod_a_bad_canary_keeps_its_share_until_there_is_one() -> None:
    simulation = simulate()
    want(simulation, 2)
    run(simulation, 5)
    target = simulation.targets["cpu"]
    target.deployments["cpu-1"].ready = 0
    simulation.bad.add("cpu-2")
    simulation.reconcile()
    assert (target.canary, target.weight) == ("cpu-2", 10)
    run(simulation, 3)
    assert (target.weight, target.deployments["cpu-2"].replicas) == (0, 0)


def test_a_first_revision_is_not_judged() -> None:
    simulation = Simulation({"cpu": Target(2, desired="cpu-1")}, metrics=False)
    run(simulation, 3)
    assert simulation.targets["cpu"].stable == "cpu-1"


def happen(simulation: Simulation, dice: random.Random, names: list[str]) -> None:
    """One random event."""
    target = simulation.targets[dice.choice(names)]
    event = dice.randrange(16)
    if event == 0:
        want(simulation, dice.randrange(1, 7))
    elif event == 1:
        target.desired = None if dice.random() < 0.5 else f"{names[0]}-{dice.randrange(1, 7)}"
    elif event in {7, 8, 9}:
        ask(simulation, dice, event, target)
    elif event == 2:
        simulation.metrics = not simulation.metrics
    elif event in {3, 4, 5} and target.deployments:
        deployment = target.deployments[dice.choice(list(target.deployments))]
        deployment.ready = dice.randint(0, deployment.replicas)
        deployment.was_available = deployment.was_available or 0 < deployment.ready == deployment.replicas
    elif event == 6 and target.stable in target.deployments and dice.random() < 0.5:
        size = dice.randint(1, 6)
        target.replicas = target.deployments[target.stable].replicas = size
    elif event in {10, 11}:
        simulation.settle_pods()
    else:
        simulation.time += dice.choice((1, 61, 601))


def ask(simulation: Simulation, dice: random.Random, event: int, target: Target) -> None:
    """What people ask for by hand."""
    if event == 7 and dice.random() < 0.2:
        simulation.suspended = not simulation.suspended
    elif event == 8 and dice.random() < 0.3:
        simulation.promote = target.desired
    elif event == 9 and dice.random() < 0.3:
        simulation.abort = target.desired


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_in_whatever_order(part: int) -> None:
    """The writes themselves are checked by the simulation: see `rollout_simulation`."""
    dice = random.Random(part)  # noqa: S311 - orders, not secrets
    switched = shared = refused = 0
    for order in range(ORDERS):
        names = ["cpu", "l4"][: 1 + order % 2]
        strategy = replace(STRATEGY, splits_by_pods=dice.random() < 0.5, history=dice.randrange(3))
        simulation = Simulation({name: Target(dice.randint(1, 4), desired=f"{name}-1") for name in names}, strategy)
        simulation.bad = {f"{names[-1]}-{dice.randrange(2, 7)}"}
        simulation.bad_with_traffic = {f"{names[0]}-{dice.randrange(2, 7)}"}
        if order % 4:
            run(simulation, 3)
        for _ in range(EVENTS):
            happen(simulation, dice, names)
            # A pass may be cut off after any of its writes: the operator is killed and starts anew.
            simulation.reconcile(dice.choice((None, None, None, 0, 1, 2, 3)))
            shared += any(item.weight for item in simulation.targets.values())
        switched += any(item.stable not in {None, f"{name}-1"} for name, item in simulation.targets.items())
        refused += any(
            item.progress and item.progress.phase == "Rejected"
            for t in simulation.targets.values()
            for item in t.deployments.values()
        )
        if order % 10 == 0:
            the_next_good_spec_goes_through(simulation)
    # The orders reach what they are about.
    assert min(switched, shared, refused) > ORDERS / 20


def the_next_good_spec_goes_through(simulation: Simulation) -> None:
    simulation.suspended, simulation.metrics, simulation.promote, simulation.abort = False, True, None, None
    want(simulation, 99)
    run(simulation, 30)
    for name, target in simulation.targets.items():
        assert (target.stable, target.weight) == (f"{name}-99", 0)
        assert target.deployments[f"{name}-99"].replicas == target.replicas
