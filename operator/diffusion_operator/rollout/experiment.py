"""A variant of an experiment: which of its revisions has its share of the requests, if any; pure.

All targets together, since a user whose requests go to several targets is to see one variant only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffusion_operator.rollout.state import RevisionState


@dataclass(frozen=True)
class VariantState:
    """One variant on one target as it was seen.

    Attributes:
        desired: revision that the spec asks for; None while it is being built, or when there is nothing to start.
        revisions: of this variant that exist.
        weights: live percentages of its revisions.
        pods: that its share needs.
        startable: a Deployment may be created: there is a stable revision that works.
        suspended: serve nothing.
        held: a revision that is neither stable nor a variant keeps a share, since the stable one has no ready pod.
    """

    desired: str | None
    revisions: tuple[RevisionState, ...]
    weights: Mapping[str, int]
    pods: int
    startable: bool = True
    suspended: bool = False
    held: bool = False

    def find(self, name: str | None) -> RevisionState | None:
        """The revision with this name, when it exists."""
        return next((item for item in self.revisions if item.name == name), None)

    def ready(self, name: str | None) -> int:
        """Ready pods of the revision."""
        found = self.find(name)
        return found.ready if found is not None else 0

    def weight(self, name: str | None) -> int:
        """Live percentage of the revision."""
        return self.weights.get(name, 0) if name is not None else 0

    @property
    def present(self) -> str | None:
        """The ready revision that has a share now."""
        found = [item.name for item in self.revisions if item.ready and self.weight(item.name)]
        return max(found, key=self.weight, default=None)


@dataclass(frozen=True)
class VariantStep:
    """What to do now with one variant on one target.

    Attributes:
        weight: percentage of the requests that it gets; what it lacks of its share stays with the stable revision.
        traffic: revision that gets it; None when nobody does.
        replicas: pods of every revision that is to exist.
        remove: revisions to delete.
    """

    weight: int = 0
    traffic: str | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


def next_variant(weight: int, targets: Mapping[str, VariantState]) -> Mapping[str, VariantStep]:
    """What to do now with a variant on each target; a share grows only to as many ready pods as it needs.

    Args:
        weight: percentage that the spec gives it.
        targets: of the pipeline, all of them.
    """
    served = _served(targets)
    share = _weight(weight, targets, served)
    steps = {}
    for name, state in targets.items():
        traffic = served.get(name) if share else None
        remove = _useless(state, traffic)
        steps[name] = VariantStep(share, traffic, _replicas(state, remove), remove)
    return steps


def _served(targets: Mapping[str, VariantState]) -> dict[str, str]:
    """Revision by target; nothing when there is a target without a ready one."""
    if any(state.held for state in targets.values()):
        return {}
    if all(_takes_over(state) for state in targets.values()):
        return {name: state.desired for name, state in targets.items() if state.desired is not None}
    present = {name: state.present for name, state in targets.items()}
    found = {name: revision for name, revision in present.items() if revision is not None}
    return found if len(found) == len(targets) else {}


def _takes_over(state: VariantState) -> bool:
    """Pods that are lost later do not take a share away that has ready ones."""
    return state.ready(state.desired) >= (1 if state.weight(state.desired) else state.pods)


def _weight(wanted: int, targets: Mapping[str, VariantState], served: Mapping[str, str]) -> int:
    if not served:
        return 0
    if all(state.ready(served[name]) >= state.pods for name, state in targets.items()):
        return wanted
    live = max(max(state.weights.values(), default=0) for state in targets.values())
    return min(wanted, live)


def _replicas(state: VariantState, remove: tuple[str, ...]) -> dict[str, int]:
    kept = [item.name for item in state.revisions if item.name not in remove]
    if state.desired is not None and state.startable and state.desired not in kept:
        kept.append(state.desired)
    return dict.fromkeys(kept, 0 if state.suspended else state.pods)


def _useless(state: VariantState, traffic: str | None) -> tuple[str, ...]:
    """Earlier revisions of the variant: kept while the next one is being built, gone once it is there."""
    kept = {state.desired, traffic}
    if state.ready(state.desired) < state.pods:
        return ()
    return tuple(item.name for item in state.revisions if item.name not in kept and not state.weight(item.name))
