"""Simulated rollouts: targets, pods, a clock and people, and what holds in every order of events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.rollout.decision import decide_rollout
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutObservation, RolloutState, Strategy

if TYPE_CHECKING:
    from diffusion_operator.rollout.progress import RolloutProgress

PASS = Verdict("Pass", "Passed", "as good")
FAIL = Verdict("Fail", "ErrorRatio", "half of the requests fail", {"errorRatio": 0.5})
SILENT = Verdict("Inconclusive", "Inconclusive", "no requests")
STRATEGY = Strategy(
    is_canary=True,
    weights=(10, 50),
    pauses=(60, 60),
    deadline=600,
    progress_deadline=600,
    history=2,
    splits_by_pods=True,
)


@dataclass
class Deployment:
    """One revision's Deployment and its pods."""

    replicas: int
    ready: int = 0
    was_available: bool = False
    progress: RolloutProgress | None = None
    progressed_at: float = 0.0


@dataclass
class Target:
    """One target: what the API server holds about it."""

    replicas: int
    desired: str | None = None
    stable: str | None = None
    canary: str | None = None
    weight: int = 0
    deployments: dict[str, Deployment] = field(default_factory=dict)

    def ready(self, revision: str | None) -> int:
        deployment = self.deployments.get(revision or "")
        return deployment.ready if deployment is not None else 0

    def share(self, revision: str | None) -> int:
        if revision is None:
            return 0
        return (100 - self.weight if revision == self.stable else 0) + (
            self.weight if revision == self.canary and revision != self.stable else 0
        )


@dataclass
class Simulation:
    """All targets, the clock, what is true about each revision, and what people ask for."""

    targets: dict[str, Target]
    strategy: Strategy = STRATEGY
    time: float = 0.0
    suspended: bool = False
    metrics: bool = True
    promote: str | None = None
    abort: str | None = None
    bad: set[str] = field(default_factory=set)
    bad_with_traffic: set[str] = field(default_factory=set)
    by_hand: set[str] = field(default_factory=set)
    served: set[str] = field(default_factory=set)

    def observation(self) -> RolloutObservation:
        verdicts = {name: self.verdict(item) for name, item in self.targets.items()}
        states = {name: self.state(item) for name, item in self.targets.items()}
        return RolloutObservation(states, verdicts, self.promote, self.abort)

    def verdict(self, target: Target) -> Verdict:
        deployment = target.deployments.get(target.desired or "")
        has_traffic = deployment is not None and deployment.progress is not None and deployment.progress.phase == "Step"
        if target.desired in self.bad or (target.desired in self.bad_with_traffic and has_traffic):
            return FAIL
        return PASS if self.metrics else SILENT

    def state(self, target: Target) -> RolloutState:
        revisions = tuple(
            RevisionState(
                name, item.replicas, item.ready, item.was_available, item.progress, self.time - item.progressed_at
            )
            for name, item in target.deployments.items()
        )
        planned_names = {target.stable, target.desired}
        return RolloutState(
            desired=target.desired,
            stable=target.stable,
            revisions=revisions,
            replicas=target.replicas,
            suspended=self.suspended,
            weights={target.canary: target.weight} if target.canary and target.canary != target.stable else {},
            unexpected_pods=any(item.ready for name, item in target.deployments.items() if name not in planned_names),
        )

    def reconcile(self, until: int | None = None) -> dict[str, RolloutDecision]:
        """One pass that is cut off after some of its writes; every write is checked."""
        desired_revisions = {item.desired for item in self.targets.values() if item.desired is not None}
        if self.promote in desired_revisions:
            self.by_hand |= desired_revisions
        decisions = dict(decide_rollout(self.strategy, self.observation()))
        for write in [write for name, decision in decisions.items() for write in self.writes(name, decision)][:until]:
            write()
        return decisions

    def writes(self, name: str, decision: RolloutDecision) -> list[_Write]:
        """What a pass writes for one target, in the operator's order."""
        target, desired = self.targets[name], self.targets[name].desired
        writes = [
            _Write(self, target, "progress", revision, progress=progress)
            for revision, progress in decision.progress_updates.items()
        ]
        if desired is not None and decision.desired_replicas is not None:
            writes = [_Write(self, target, "scale", desired, decision.desired_replicas), *writes]
        if decision.stable is not None:
            writes.append(_Write(self, target, "traffic", decision.stable, decision.weight, canary=decision.canary))
        writes += [
            _Write(self, target, "scale", revision, count) for revision, count in decision.replica_changes.items()
        ]
        return writes + [_Write(self, target, "remove", revision) for revision in decision.removals]

    def settle_pods(self) -> None:
        """Every pod that is wanted becomes ready."""
        for target in self.targets.values():
            for item in target.deployments.values():
                item.ready = item.replicas
                item.was_available = item.was_available or item.replicas > 0


@dataclass
class _Write:
    simulation: Simulation
    target: Target
    verb: str
    revision: str
    count: int = 0
    canary: str | None = None
    progress: RolloutProgress | None = None

    def __call__(self) -> None:
        if self.verb == "traffic":
            self._traffic()
        elif self.verb == "scale":
            self._scale()
        elif self.verb == "remove":
            self._remove()
        elif self.revision in self.target.deployments:
            deployment = self.target.deployments[self.revision]
            deployment.progress, deployment.progressed_at = self.progress, self.simulation.time

    @property
    def nobody_is_hurt(self) -> bool:
        """There is no stable revision that ever worked, or nothing is to be served."""
        stable = self.target.deployments.get(self.target.stable or "")
        lost = stable is None or (not stable.was_available and stable.ready == 0)
        return lost or self.simulation.suspended

    def _traffic(self) -> None:
        target = self.target
        before = {name: target.share(name) for name in {*target.deployments, target.stable, self.revision, self.canary}}
        free, switched = self.nobody_is_hurt, target.stable not in {None, self.revision}
        unserved = all(target.ready(name) == 0 for name, share in before.items() if share)
        assert 0 <= self.count <= 99, "a share of the canary"
        assert (self.canary is not None) or self.count == 0, "a share is somebody's"
        target.stable, target.canary, target.weight = self.revision, self.canary, self.count
        assert sum(target.share(name) for name in before if name is not None) == 100, (
            "all of the traffic goes somewhere"
        )
        for name, share in before.items():
            if name is not None and target.share(name) > share and not (free or unserved):
                assert target.ready(name) > 0, f"{name} gets {target.share(name)} % without a ready pod"
        if free:
            self.simulation.served.add(self.revision)
            return
        if switched:
            assert target.ready(self.revision) >= target.replicas, "promoted before it has its full size"
            is_trusted = self.revision in self.simulation.served | self.simulation.by_hand
            worse = self.simulation.bad | self.simulation.bad_with_traffic
            assert is_trusted or self.revision not in worse, "what is bad never has all of the traffic"
            self.simulation.served.add(self.revision)
        if self.canary is not None and self.count > before.get(self.canary, 0):
            needed = self.simulation.strategy.pods(self.count, target.replicas)
            assert target.ready(self.canary) >= needed, "more than its pods can take"
            hidden = self.canary in self.simulation.bad - self.simulation.by_hand
            assert not hidden, "who fails without traffic never gets any"

    def _scale(self) -> None:
        target, deployment = self.target, self.target.deployments.get(self.revision)
        if deployment is None:
            target.deployments[self.revision] = Deployment(self.count)
            return
        if self.revision == target.stable and self.revision != target.desired and not self.nobody_is_hurt:
            assert self.count >= deployment.replicas, "the stable revision lost pods"
        if not self.simulation.suspended and target.share(self.revision) and self.revision == target.canary:
            needed = self.simulation.strategy.pods(target.weight, target.replicas)
            assert self.count >= min(needed, deployment.replicas), "fewer than its share needs"
        deployment.replicas, deployment.ready = self.count, min(deployment.ready, self.count)

    def _remove(self) -> None:
        if not self.nobody_is_hurt:
            assert self.target.share(self.revision) == 0, "what has traffic is not removed"
        self.target.deployments.pop(self.revision, None)
