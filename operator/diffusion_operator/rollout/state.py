"""Input and output of a rollout's decision. No clock, no I/O: ages and verdicts are part of the input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from diffusion_contract.durations import duration_seconds
from diffusion_contract.spec import Rollout
from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.rollout.progress import RolloutProgress

RolloutStatus = Literal["Waiting", "Starting", "Canary", "Promoting", "Rejected", "Removing", "Complete", "Suspended"]


@dataclass(frozen=True)
class RevisionState:
    """One revision's Deployment.

    Attributes:
        replicas: pods that its Deployment asks for.
        was_available: every pod was ready at some time.
        progress: how far it has come; None when nothing is recorded yet.
        phase_seconds: since it came there.
    """

    name: str
    replicas: int
    ready: int
    was_available: bool
    progress: RolloutProgress | None = None
    phase_seconds: float = 0.0

    @property
    def was_stable(self) -> bool:
        """Whether it is or was stable."""
        return self.progress is not None and self.progress.was_stable

    @property
    def is_rejected(self) -> bool:
        """Whether it was tried and rejected."""
        return self.progress is not None and self.progress.phase == "Rejected"

    @property
    def is_yielding(self) -> bool:
        """Whether it gives its GPUs to another one."""
        return self.progress is not None and self.progress.phase == "Yielding"


class RevisionLookup:
    """Access to the revisions of one target by name."""

    revisions: tuple[RevisionState, ...]
    weights: Mapping[str, int]

    def find(self, name: str | None) -> RevisionState | None:
        """The revision with this name, when it exists."""
        return next((revision for revision in self.revisions if revision.name == name), None)

    def ready(self, name: str | None) -> int:
        """Ready pods of the revision."""
        revision = self.find(name)
        return revision.ready if revision is not None else 0

    def weight(self, name: str | None) -> int:
        """Live percentage of a revision that is not stable."""
        return self.weights.get(name, 0) if name is not None else 0


@dataclass(frozen=True)
class RolloutState(RevisionLookup):
    """One target as observed.

    Attributes:
        desired: revision that the spec asks for; None while it is still being built.
        stable: revision that the target's live Service calls stable; None before there is one.
        revisions: that exist, oldest first.
        replicas: that the spec asks for.
        weights: live percentage of the traffic of revisions other than the stable one.
        unexpected_pods: pods of other revisions than the stable and the desired one are alive.
        is_building: nothing of the desired revision's build has failed; always false once it is built.
        waits_for_gpu: a compile Job or the desired revision waits for a GPU that is in use.
    """

    desired: str | None
    stable: str | None
    revisions: tuple[RevisionState, ...]
    replicas: int
    suspended: bool = False
    weights: Mapping[str, int] = field(default_factory=dict)
    unexpected_pods: bool = False
    is_building: bool = False
    waits_for_gpu: bool = False

    @property
    def candidate(self) -> RevisionState | None:
        """The desired revision, while it is not the stable one."""
        return self.find(self.desired) if self.desired != self.stable else None

    @property
    def has_no_working_stable(self) -> bool:
        """True when there is no stable revision that ever worked: no client is served who could be hurt."""
        stable = self.find(self.stable)
        return stable is None or not (stable.was_available or stable.was_stable or stable.ready)


@dataclass(frozen=True)
class RolloutDecision:
    """What to do now with one target.

    Attributes:
        stable: revision that becomes or stays stable; None while there is nothing to serve.
        desired_replicas: pods of the desired revision's Deployment; None while it must not exist.
        replica_changes: new number of pods of other revisions, where it changes.
        canary: revision that gets `weight`.
        weight: percentage of the traffic that is not the stable revision's.
        progress_updates: to record on Deployments, by revision.
        yields: the stable revision has no pods, so that the desired one gets its GPUs.
    """

    stable: str | None
    desired_replicas: int | None
    status: RolloutStatus
    replica_changes: Mapping[str, int] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    canary: str | None = None
    weight: int = 0
    progress_updates: Mapping[str, RolloutProgress] = field(default_factory=dict)
    yields: bool = False


@dataclass(frozen=True)
class Strategy:
    """How revisions follow each other.

    Attributes:
        is_canary: a new revision gets the traffic step by step.
        weights: of the steps, percent.
        pauses: of the steps, seconds.
        deadline: how long a phase may stay without a verdict, seconds.
        progress_deadline: how long pods may take to be ready, seconds.
        history: revisions that are kept without pods.
        splits_by_pods: the number of pods decides who gets how much, not a Gateway.
        surge: 0: the stable revision makes room when there is no GPU for another one.
    """

    is_canary: bool = False
    weights: tuple[int, ...] = ()
    pauses: tuple[int, ...] = ()
    deadline: int = 0
    progress_deadline: int = 0
    history: int = 0
    splits_by_pods: bool = True
    surge: int = 1

    def pods(self, weight: int, replicas: int) -> int:
        """Pods that a canary needs for a percentage, beside `replicas` pods of the stable revision.

        By pods: so many that their share comes next to the weight. The stable revision keeps all of its pods until the
        canary is promoted, so that share is a half at most.
        """
        full = max(1, replicas)
        pods = round(weight * full / (100 - weight)) if self.splits_by_pods else -(-weight * full // 100)
        return min(max(1, pods), full)


def strategy_of(rollout: Rollout | None) -> Strategy:
    """The strategy that the spec asks for."""
    if rollout is None:
        return Strategy()
    return Strategy(
        is_canary=rollout.strategy == "Canary",
        weights=tuple(step.weight for step in rollout.steps),
        pauses=tuple(duration_seconds(step.pause) for step in rollout.steps),
        deadline=duration_seconds(rollout.analysis.deadline),
        progress_deadline=duration_seconds(rollout.progress_deadline),
        history=rollout.revision_history_limit,
        splits_by_pods=rollout.traffic.gateway is None,
        surge=rollout.surge,
    )


@dataclass(frozen=True)
class RolloutObservation:
    """All targets as observed.

    Attributes:
        verdicts: of the phase that each target's candidate is in, by target; absent where nothing is known.
        promote: revision that a person promotes, whatever its verdicts.
        abort: revision whose canary a person stops.
    """

    targets: Mapping[str, RolloutState]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    promote: str | None = None
    abort: str | None = None
