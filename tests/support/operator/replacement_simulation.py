"""A node with few GPUs, its pods and one compile Job: what holds while a revision is replaced, whatever is cut off."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from diffusion_operator.rollout.decision import decide_rollout
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutObservation, RolloutState, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRATEGY = Strategy(progress_deadline=120, history=2, surge=0)
PASS_SECONDS = 20.0
OLD, NEW = "old", "new"


@dataclass
class Deployment:
    """One revision: pods that are asked for, that have a GPU, and that are ready."""

    replicas: int
    with_gpu: int = 0
    ready: int = 0
    was_available: bool = False
    progress: RolloutProgress | None = None
    progressed_at: float = 0.0


@dataclass
class GpuNode:
    """One target on one node.

    Attributes:
        gpus: of the node; every pod needs one.
        is_bad: the new revision's pods are never ready.
        fails: the compile Job fails, for good.
    """

    gpus: int = 1
    is_bad: bool = False
    fails: bool = False
    job: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    stable: str = OLD
    time: float = 0.0
    interruptions: int = 0
    deployments: dict[str, Deployment] = field(
        default_factory=lambda: {
            OLD: Deployment(1, 1, 1, was_available=True, progress=RolloutProgress("Served", was_stable=True))
        }
    )

    @property
    def free_gpus(self) -> int:
        return self.gpus - sum(item.with_gpu for item in self.deployments.values()) - (self.job == "Running")

    @property
    def desired(self) -> str | None:
        return NEW if self.job == "Succeeded" else None

    def state(self) -> RolloutState:
        candidate = self.deployments.get(NEW)
        pod_waits = candidate is not None and candidate.replicas > candidate.with_gpu and self.stable == OLD
        job_waits = self.job == "Pending"
        return RolloutState(
            desired=self.desired,
            stable=self.stable,
            revisions=tuple(
                RevisionState(
                    name, item.replicas, item.ready, item.was_available, item.progress, self.time - item.progressed_at
                )
                for name, item in self.deployments.items()
            ),
            replicas=1,
            is_building=self.job in {"Pending", "Running"},
            waits_for_gpu=self.free_gpus <= 0 and (job_waits or pod_waits),
        )

    def reconcile(self, until: int | None = None) -> RolloutDecision:
        """One pass that is cut off after some of its writes; every write is checked."""
        decision = decide_rollout(STRATEGY, RolloutObservation({"l4": self.state()}))["l4"]
        for write in list(self._writes(decision))[:until]:
            write()
        return decision

    def run_controllers(self) -> None:
        """Time passes: what has a GPU gets on, and what waits gets a free one, the Job first."""
        self.time += PASS_SECONDS
        if self.job == "Running":
            self.job = "Failed" if self.fails else "Succeeded"
        for name, item in self.deployments.items():
            item.with_gpu = min(item.with_gpu, item.replicas)
            item.ready = 0 if self.is_bad and name == NEW else item.with_gpu
            item.was_available = item.was_available or item.ready >= item.replicas > 0
        if self.job == "Pending" and self.free_gpus > 0:
            self.job = "Running"
        for item in self.deployments.values():
            item.with_gpu += max(0, min(self.free_gpus, item.replicas - item.with_gpu))

    def _writes(self, decision: RolloutDecision) -> Iterator[Callable[[], None]]:
        """In the operator's order: create, annotate, move the traffic, scale, remove."""
        if self.desired is not None and decision.desired_replicas is not None:
            yield partial(self._create, NEW, decision.desired_replicas)
        for revision, progress in decision.progress_updates.items():
            yield partial(self._annotate, revision, progress)
        assert decision.stable is not None
        yield partial(self._move_traffic, decision.stable)
        changes = dict(decision.replica_changes)
        if self.desired is not None and decision.desired_replicas is not None:
            changes[NEW] = decision.desired_replicas
        for revision, count in changes.items():
            yield partial(self._scale, revision, count)
        for revision in decision.removals:
            yield partial(self._remove, revision)

    def _create(self, revision: str, count: int) -> None:
        self.deployments.setdefault(revision, Deployment(count))

    def _annotate(self, revision: str, progress: RolloutProgress) -> None:
        if revision in self.deployments:
            self.deployments[revision].progress, self.deployments[revision].progressed_at = progress, self.time

    def _move_traffic(self, revision: str) -> None:
        if revision != self.stable:
            assert self.deployments[revision].ready >= 1, "traffic moved to a revision without ready pods"
            assert not self.is_bad, "traffic moved to a bad revision"
        self.stable = revision

    def _scale(self, revision: str, count: int) -> None:
        item = self.deployments[revision]
        if revision == self.stable and count < item.replicas:
            assert item.progress is not None, "a stable revision lost pods"
            assert item.progress.phase == "Yielding", "a stable revision lost pods, and nothing says why"
            self.interruptions += 1
        item.replicas, item.with_gpu, item.ready = count, min(item.with_gpu, count), min(item.ready, count)

    def _remove(self, revision: str) -> None:
        assert revision != self.stable, "the stable revision was removed"
        self.deployments.pop(revision)
