"""Variants of an experiment: who is sent where, and what is decided about them; pure functions."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from diffusion_contract.spec import DiffusionPipelineSpec, Variant, apply_variant
from diffusion_operator.manifests import buckets
from diffusion_operator.rollout.experiment import VariantDecision, VariantState, decide_variant
from diffusion_operator.rollout.state import RevisionState
from tests.support.operator.fake_cluster import REVISION, minimal_spec

HASHES = [f"{number:02x}" + "c0ffee" for number in range(buckets.BUCKETS)]


def shares(seed: int) -> list[int]:
    """Random whole percentages that sum up to 100, none of them 0."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    cuts = sorted(chance.sample(range(1, 100), chance.randint(0, 6)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, 100], strict=True)]


@pytest.mark.parametrize("seed", range(300))
def test_every_hash_belongs_to_exactly_one_side_and_shares_are_exact_to_one_bucket(seed: int) -> None:
    weights = shares(seed)
    ranges = buckets.allocate_buckets(weights)
    patterns = [re.compile(buckets.pattern([item])) for item in ranges]
    sides_by_hash = [[number for number, side in enumerate(patterns) if side.fullmatch(value)] for value in HASHES]
    assert all(len(sides) == 1 for sides in sides_by_hash)
    for number, weight in enumerate(weights):
        assert abs(sum(sides == [number] for sides in sides_by_hash) - 256 * weight / 100) < 1


@pytest.mark.parametrize("seed", range(100))
def test_a_pattern_matches_what_is_in_its_ranges_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a simulation
    cuts = sorted(chance.sample(range(257), 4))
    ranges = [range(cuts[2], cuts[3]), range(cuts[0], cuts[1])]
    side = re.compile(buckets.pattern(ranges))
    expected = [value for number, value in enumerate(HASHES) if any(number in item for item in ranges)]
    assert [value for value in HASHES if side.fullmatch(value)] == expected
    assert not any(side.fullmatch(value) for value in ("", "g0", "-1", "user-42", "  "))


def test_neighbours_are_written_as_one() -> None:
    assert buckets.pattern([range(128, 256), range(128)]) == "^([0-9a-f][0-9a-f]).*$"
    assert buckets.pattern([range(26)]) == "^(0[0-9a-f]|1[0-9]).*$"


# What is decided.


def revision(name: str, replicas: int, ready: int) -> RevisionState:
    return RevisionState(name, replicas, ready, was_available=ready > 0)


def state(*revisions: RevisionState, **changes: Any) -> VariantState:  # noqa: ANN401 - fields of the state
    fields: dict[str, Any] = {"desired": "new", "revisions": revisions, "weights": {}, "required_pods": 2}
    return VariantState(**(fields | changes))


CASES: dict[str, tuple[VariantState, VariantDecision]] = {
    "is built": (state(desired=None), VariantDecision()),
    "is started beside a stable revision that works": (state(), VariantDecision(replicas={"new": 2})),
    "waits for one": (state(startable=False), VariantDecision()),
    "gets nothing while a pod of its first ones lacks": (
        state(revision("new", 2, 1)),
        VariantDecision(replicas={"new": 2}),
    ),
    "gets its share": (state(revision("new", 2, 2)), VariantDecision(30, "new", {"new": 2})),
    "keeps it while one pod is lost": (
        state(revision("new", 2, 1), weights={"new": 30}),
        VariantDecision(30, "new", {"new": 2}),
    ),
    "gives it back without a pod": (
        state(revision("new", 2, 0), weights={"new": 30}),
        VariantDecision(0, None, {"new": 2}),
    ),
    "grows after its pods": (state(revision("new", 1, 1), weights={"new": 10}), VariantDecision(10, "new", {"new": 2})),
    "shrinks at once": (
        state(revision("new", 4, 4), weights={"new": 60}),
        VariantDecision(30, "new", {"new": 2}),
    ),
    "keeps the earlier revision while the next is built": (
        state(revision("old", 2, 2), weights={"old": 30}, desired=None),
        VariantDecision(30, "old", {"old": 2}),
    ),
    "keeps it until the next is ready": (
        state(revision("old", 2, 2), revision("new", 2, 1), weights={"old": 30}),
        VariantDecision(30, "old", {"old": 2, "new": 2}),
    ),
    "moves": (
        state(revision("old", 2, 2), revision("new", 2, 2), weights={"old": 30}),
        VariantDecision(30, "new", {"old": 2, "new": 2}),
    ),
    "drops the earlier one once nobody is sent there": (
        state(revision("old", 2, 2), revision("new", 2, 2), weights={"new": 30}),
        VariantDecision(30, "new", {"new": 2}, ("old",)),
    ),
    "leaves a share that an earlier canary has to keep": (
        state(revision("new", 2, 2), share_frozen=True),
        VariantDecision(0, None, {"new": 2}),
    ),
    "is suspended": (
        state(revision("old", 2, 0), suspended=True, desired=None),
        VariantDecision(0, None, {"old": 0}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_variant(name: str) -> None:
    observed, expected = CASES[name]
    assert decide_variant(30, {"cpu": observed}) == {"cpu": expected}


def test_a_variant_that_one_target_lacks_gets_nothing_on_any() -> None:
    """A user's requests go to several targets, and are to be answered by one variant."""
    good = state(revision("new", 2, 2), weights={"new": 30})
    decisions = decide_variant(30, {"cpu": good, "l4": state(revision("new", 2, 0), weights={"new": 30})})
    assert [item.weight for item in decisions.values()] == [0, 0]
    assert [item.serving_revision for item in decisions.values()] == [None, None]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_a_variant_gets_requests_only_on_ready_pods_and_finds_its_share_in_the_end(seed: int) -> None:
    """500 random events each: pods come and go, specs and weights change, passes are cut off, all is suspended."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    simulation = Simulation(chance)
    for _ in range(500):
        chance.choice(simulation.events)()
        simulation.reconcile()
    simulation.settle()
    assert simulation.live == {name: {simulation.desired: simulation.weight} for name in simulation.targets}
    assert {name: list(revisions) for name, revisions in simulation.targets.items()} == {
        name: [simulation.desired] for name in simulation.targets
    }


class Simulation:
    """Two targets with one variant; keeps the rules."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.weight, self.number, self.built, self.suspended, self.startable = 30, 0, True, False, True
        self.targets: dict[str, dict[str, RevisionState]] = {"cpu": {}, "l4": {}}
        self.live: dict[str, dict[str, int]] = {"cpu": {}, "l4": {}}
        self.events = [self.pods, self.pods, self.lose, self.other_spec, self.other_weight, self.build, self.suspend]
        self.events.append(self.lose_stable)

    @property
    def desired(self) -> str:
        return f"{self.number:08}"

    def pods(self) -> None:
        self.set_ready(lambda item: min(item.replicas, item.ready + self.chance.randint(0, 2)))

    def lose(self) -> None:
        self.set_ready(lambda item: self.chance.randint(0, item.ready))

    def set_ready(self, count: Any) -> None:  # noqa: ANN401 - a function
        for revisions in self.targets.values():
            for name, item in revisions.items():
                revisions[name] = revision(name, item.replicas, count(item))

    def other_spec(self) -> None:
        self.number, self.built = self.number + self.chance.randint(0, 1), self.chance.random() < 0.5

    def other_weight(self) -> None:
        self.weight = self.chance.randint(1, 99)

    def build(self) -> None:
        self.built = True

    def suspend(self) -> None:
        self.suspended = self.chance.random() < 0.3

    def lose_stable(self) -> None:
        self.startable = self.chance.random() < 0.8

    def settle(self) -> None:
        self.built, self.suspended, self.startable = True, False, True
        for _ in range(6):
            self.reconcile(whole=True)
            self.set_ready(lambda item: item.replicas)

    def states(self) -> dict[str, VariantState]:
        return {
            name: VariantState(
                desired=self.desired if self.built else None,
                revisions=tuple(revision_states.values()),
                weights=self.live[name],
                required_pods=max(1, self.weight * 4 // 100),
                startable=self.startable,
                suspended=self.suspended,
            )
            for name, revision_states in self.targets.items()
        }

    def reconcile(self, *, whole: bool = False) -> None:
        """A pass, in the operator's order; it may be cut off anywhere."""
        states = self.states()
        decisions = decide_variant(self.weight, states)
        whole = whole or self.chance.random() < 0.7
        for name, decision in decisions.items():
            for added in decision.replicas.keys() - self.targets[name].keys():
                self.targets[name][added] = revision(added, decision.replicas[added], 0)
        if not whole and self.chance.random() < 0.3:
            return
        for name, decision in decisions.items():
            self.route(name, states[name], decision)
        if not whole and self.chance.random() < 0.5:
            return
        for name, decision in decisions.items():
            for scaled, count in decision.replicas.items():
                item = self.targets[name][scaled]
                self.targets[name][scaled] = revision(scaled, count, min(item.ready, count))
            for useless in decision.removals:
                assert not self.live[name].get(useless), "what has a share is removed"
                del self.targets[name][useless]

    def route(self, name: str, observed: VariantState, decision: VariantDecision) -> None:
        assert 0 <= decision.weight <= self.weight
        if decision.serving_revision is None:
            assert decision.weight == 0
        else:
            assert observed.ready(decision.serving_revision) > 0, "a share without a ready pod"
        before = max(self.live[name].values(), default=0)
        if decision.weight > before:
            assert observed.ready(decision.serving_revision) >= observed.required_pods, "more than its pods can take"
        self.live[name] = {decision.serving_revision: decision.weight} if decision.serving_revision is not None else {}


# What a variant is.


def other(name: str) -> dict[str, Any]:
    return {"source": {"huggingFace": {"repo": f"demo/{name}", "revision": REVISION}}}


def test_a_variant_changes_what_it_names_and_nothing_else() -> None:
    spec = DiffusionPipelineSpec.model_validate(
        minimal_spec()
        | {
            "model": minimal_spec()["model"] | {"components": {"vae": other("vae")}, "loras": [other("lora")]},
            "schedulers": [{"type": "Euler"}, {"type": "DDIM"}],
            "rollout": {},
        }
    )
    unet = Variant.model_validate({"name": "a", "weight": 9, "model": {"components": {"denoiser": other("unet")}}})
    variant_spec = apply_variant(unet, spec)
    assert variant_spec.model.components is not None
    assert set(variant_spec.model.components.by_name()) == {"vae", "denoiser"}
    assert variant_spec.model_copy(update={"model": spec.model, "rollout": spec.rollout}) == spec
    plain = Variant.model_validate({"name": "b", "weight": 9, "model": {"loras": []}, "serving": {"image": "t:2"}})
    variant_spec = apply_variant(plain, spec)
    assert (variant_spec.model.loras, variant_spec.model.components, variant_spec.serving.image) == (
        None,
        spec.model.components,
        "t:2",
    )
    sampled = Variant.model_validate({"name": "c", "weight": 9, "scheduler": {"type": "DDIM"}})
    assert [item.type for item in apply_variant(sampled, spec).all_schedulers] == ["DDIM", "Euler"]
