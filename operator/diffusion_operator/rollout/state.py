"""What a rollout is decided on, and what is decided. No clock, no I/O: ages and verdicts are part of what was seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from diffusion_contract.base import seconds
from diffusion_contract.spec import Rollout
from diffusion_operator.analysis import Verdict

Progress = Literal["Waiting", "Starting", "Canary", "Promoting", "Rejected", "Removing", "Complete", "Suspended"]
Phase = Literal["Pictures", "Step", "Promoting", "Rejected", "Served"]


@dataclass(frozen=True)
class Note:
    """How far a revision has come; it is kept on the revision's Deployment, so nothing else has to remember it.

    Attributes:
        phase: of the canary. Pictures: compared without any traffic. Served: it is or was the stable revision.
        step: of the strategy, in phase Step.
        settled: the pods are ready and the weight is live, so the time counts and the verdict is about this phase.
        losses: how often all of its ready pods were lost.
        served: it has had all of the traffic before, so it needs no judgement to get it again.
        verdict: of the last phase that was judged.
    """

    phase: Phase
    step: int = 0
    settled: bool = False
    losses: int = 0
    served: bool = False
    verdict: Verdict | None = None


@dataclass(frozen=True)
class RevisionState:
    """One revision's Deployment.

    Attributes:
        name: the revision.
        replicas: pods that are wanted.
        ready: pods that are ready.
        proven: true when it was fully ready at some time.
        note: how far it has come; None when nothing is written yet.
        age: of the note, seconds.
    """

    name: str
    replicas: int
    ready: int
    proven: bool
    note: Note | None = None
    age: float = 0.0

    @property
    def served(self) -> bool:
        """Whether it is or was stable."""
        return self.note is not None and self.note.served

    @property
    def rejected(self) -> bool:
        """Whether it was tried and taken back."""
        return self.note is not None and self.note.phase == "Rejected"


@dataclass(frozen=True)
class RolloutState:
    """One target as it was seen.

    Attributes:
        desired: revision that the spec asks for; None while it is still being built.
        stable: revision that the target's live Service calls stable; None before there is one.
        revisions: that exist, oldest first.
        replicas: that the spec asks for.
        suspended: serve nothing.
        weights: live percentage of the traffic of revisions other than the stable one.
        strays: pods of other revisions than the stable and the desired one are alive.
    """

    desired: str | None
    stable: str | None
    revisions: tuple[RevisionState, ...]
    replicas: int
    suspended: bool = False
    weights: Mapping[str, int] = field(default_factory=dict)
    strays: bool = False

    def find(self, name: str | None) -> RevisionState | None:
        """The revision with this name, when it exists."""
        for item in self.revisions:
            if item.name == name:
                return item
        return None

    def ready(self, name: str | None) -> int:
        """Ready pods of the revision."""
        found = self.find(name)
        return found.ready if found is not None else 0

    def weight(self, name: str | None) -> int:
        """Live percentage of a revision that is not stable."""
        return self.weights.get(name, 0) if name is not None else 0

    @property
    def candidate(self) -> RevisionState | None:
        """The desired revision, while it is not the stable one."""
        return self.find(self.desired) if self.desired != self.stable else None

    @property
    def is_lost(self) -> bool:
        """True when there is no stable revision that ever worked: nobody is served who could be hurt."""
        found = self.find(self.stable)
        return found is None or (not found.proven and not found.served and found.ready == 0)


@dataclass(frozen=True)
class RolloutStep:
    """What to do now with one target.

    Attributes:
        traffic: revision that is to be stable; None when there is nothing to serve yet.
        desired_replicas: pods of the desired revision's Deployment; None when it is not to exist yet.
        scale: pods of other revisions, where they are to change.
        remove: revisions to delete.
        progress: for the conditions.
        canary: revision that gets `weight`.
        weight: percentage of the traffic that is not the stable revision's.
        notes: to write on Deployments.
    """

    traffic: str | None
    desired_replicas: int | None
    progress: Progress
    scale: Mapping[str, int] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    canary: str | None = None
    weight: int = 0
    notes: Mapping[str, Note] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """How revisions follow each other.

    Attributes:
        canary: judge a new revision step by step.
        weights: of the steps, percent.
        pauses: of the steps, seconds.
        deadline: how long a phase may stay without a verdict, seconds.
        progress_deadline: how long pods may take to be ready, seconds.
        history: revisions that are kept without pods.
        by_pods: the number of pods decides who gets how much, not a Gateway.
    """

    canary: bool = False
    weights: tuple[int, ...] = ()
    pauses: tuple[int, ...] = ()
    deadline: int = 0
    progress_deadline: int = 0
    history: int = 0
    by_pods: bool = True

    def pods(self, weight: int, replicas: int) -> int:
        """Pods that a canary needs for a percentage, beside `replicas` pods of the stable revision.

        By pods: so many that their share comes next to the weight. The stable revision keeps all of its pods until the
        canary is promoted, so that share is a half at most.
        """
        full = max(1, replicas)
        wanted = round(weight * full / (100 - weight)) if self.by_pods else -(-weight * full // 100)
        return min(max(1, wanted), full)


def strategy_of(rollout: Rollout | None) -> Strategy:
    """The strategy that the spec asks for."""
    if rollout is None:
        return Strategy()
    return Strategy(
        canary=rollout.strategy == "Canary",
        weights=tuple(step.weight for step in rollout.steps),
        pauses=tuple(seconds(step.pause) for step in rollout.steps),
        deadline=seconds(rollout.analysis.deadline),
        progress_deadline=seconds(rollout.progress_deadline),
        history=rollout.revision_history_limit,
        by_pods=rollout.traffic.gateway is None,
    )


@dataclass(frozen=True)
class Observation:
    """All targets as they were seen.

    Attributes:
        targets: by name.
        verdicts: of the phase that each target's candidate is in, by target; none where nothing is known.
        promote: revision that somebody wants to have all of the traffic, judged or not.
        abort: revision that somebody wants to be taken back.
    """

    targets: Mapping[str, RolloutState]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    promote: str | None = None
    abort: str | None = None
