"""Moving one target from its stable revision to the desired one; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Progress = Literal["Waiting", "Starting", "Removing", "Complete", "Suspended"]


@dataclass(frozen=True)
class RevisionState:
    """One revision's Deployment.

    Attributes:
        name: the revision.
        replicas: pods that are wanted.
        ready: pods that are ready.
        proven: true when it was fully ready at some time.
    """

    name: str
    replicas: int
    ready: int
    proven: bool


@dataclass(frozen=True)
class RolloutState:
    """One target as it was seen.

    Attributes:
        desired: revision that the spec asks for; None while it is still being built.
        stable: revision that the target's live Service selects; None before there is one.
        revisions: that exist.
        replicas: that the spec asks for.
        suspended: serve nothing.
    """

    desired: str | None
    stable: str | None
    revisions: tuple[RevisionState, ...]
    replicas: int
    suspended: bool = False

    def find(self, name: str | None) -> RevisionState | None:
        """The revision with this name, when it exists."""
        return next((item for item in self.revisions if item.name == name), None)


@dataclass(frozen=True)
class RolloutStep:
    """What to do now.

    Attributes:
        traffic: revision that the Service is to select; None when there is nothing to select yet.
        desired_replicas: pods of the desired revision's Deployment; None when it is not to exist yet.
        scale: pods of older revisions, where they are to change.
        remove: revisions to delete.
        progress: for the conditions.
    """

    traffic: str | None
    desired_replicas: int | None
    progress: Progress
    scale: Mapping[str, int] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


def next_step(state: RolloutState) -> RolloutStep:
    """The next safe step: traffic moves only to a ready revision, then, once seen, the old one goes."""
    if state.desired is None:
        return _hold(state)
    replicas = 0 if state.suspended else state.replicas
    traffic = _traffic(state, state.desired)
    remove = tuple(item.name for item in state.revisions if _is_useless(item, state, traffic))
    return RolloutStep(
        traffic=traffic,
        desired_replicas=replicas,
        progress=_progress(state, state.desired, traffic, remove),
        scale=_scale(state, skip={state.desired, *remove}),
        remove=remove,
    )


def _hold(state: RolloutState) -> RolloutStep:
    """Nothing new to serve yet: what serves goes on, what an older spec started without traffic goes."""
    remove = tuple(item.name for item in state.revisions if item.name != state.stable)
    progress: Progress = "Suspended" if state.suspended else "Waiting"
    return RolloutStep(state.stable, None, progress, _scale(state, skip=set(remove)), remove)


def _traffic(state: RolloutState, desired: str) -> str:
    if state.find(state.stable) is None or state.stable is None:
        return desired
    candidate = state.find(desired)
    ready = candidate is not None and candidate.ready >= max(1, state.replicas)
    return desired if ready or state.suspended else state.stable


def _is_useless(item: RevisionState, state: RolloutState, traffic: str) -> bool:
    """Neither wanted nor serving; a stable revision that never worked only takes the new one's place."""
    if item.name == state.desired:
        return False
    if item.name == state.stable:
        return not item.proven and item.ready == 0
    return item.name != traffic


def _progress(state: RolloutState, desired: str, traffic: str, remove: tuple[str, ...]) -> Progress:
    if state.suspended:
        return "Suspended"
    candidate = state.find(desired)
    if traffic != desired or candidate is None or _is_starting(candidate, state.replicas):
        return "Starting"
    older = [item for item in state.revisions if item.name != desired]
    return "Removing" if remove or older or state.stable != desired else "Complete"


def _is_starting(candidate: RevisionState, replicas: int) -> bool:
    """A lost pod of a revision that serves is not a rollout, nor is one that an autoscaler has scaled to zero."""
    if replicas == 0 and candidate.replicas == 0 and candidate.proven:
        return False
    return candidate.ready == 0 or (candidate.ready < replicas and not candidate.proven)


def _scale(state: RolloutState, skip: set[str]) -> dict[str, int]:
    """Older revisions that stay keep their pods, none while suspended, and get them back afterwards."""
    scale = {}
    for item in state.revisions:
        wanted = 0 if state.suspended else item.replicas or state.replicas
        if item.name not in skip and wanted != item.replicas:
            scale[item.name] = wanted
    return scale
