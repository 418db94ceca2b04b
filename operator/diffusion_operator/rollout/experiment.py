"""A variant of an experiment: which of its revisions has its share of the requests, if any; pure.

All targets together, since a user whose requests go to several targets is to see one variant only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffusion_operator.rollout.state import RevisionLookup, RevisionState


@dataclass(frozen=True)
class VariantState(RevisionLookup):
    """One variant on one target as observed.

    Attributes:
        desired: revision that the spec asks for; None while it is being built, or when there is nothing to start.
        revisions: of this variant that exist.
        weights: live percentages of its revisions.
        pods: that its share needs.
        startable: a Deployment may be created: there is a stable revision that works.
        share_frozen: a revision that is neither stable nor a variant keeps a share: the stable one has no ready pod.
    """

    desired: str | None
    revisions: tuple[RevisionState, ...]
    weights: Mapping[str, int]
    pods: int
    startable: bool = True
    suspended: bool = False
    share_frozen: bool = False

    @property
    def present(self) -> str | None:
        """The ready revision that has a share now."""
        sharing = [revision.name for revision in self.revisions if revision.ready and self.weight(revision.name)]
        return max(sharing, key=self.weight, default=None)


@dataclass(frozen=True)
class VariantDecision:
    """What to do now with one variant on one target.

    Attributes:
        weight: percentage of the requests that it gets; what it lacks of its share stays with the stable revision.
        traffic: revision that gets it; None when none does.
        replicas: pods of every revision that is to exist.
    """

    weight: int = 0
    traffic: str | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


def decide_variant(weight: int, targets: Mapping[str, VariantState]) -> Mapping[str, VariantDecision]:
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
        remove = _superseded(state, traffic)
        steps[name] = VariantDecision(share, traffic, _replicas(state, remove), remove)
    return steps


def _served(targets: Mapping[str, VariantState]) -> dict[str, str]:
    """Revision by target; nothing when there is a target without a ready one."""
    if any(state.share_frozen for state in targets.values()):
        return {}
    if all(_takes_over(state) for state in targets.values()):
        return {name: state.desired for name, state in targets.items() if state.desired is not None}
    present = {name: state.present for name, state in targets.items() if state.present is not None}
    return present if len(present) == len(targets) else {}


def _takes_over(state: VariantState) -> bool:
    """Pods that are lost later do not take a share away that has ready ones."""
    return state.ready(state.desired) >= (1 if state.weight(state.desired) else state.pods)


def _weight(full_weight: int, targets: Mapping[str, VariantState], served: Mapping[str, str]) -> int:
    if not served:
        return 0
    if all(state.ready(served[name]) >= state.pods for name, state in targets.items()):
        return full_weight
    live = max(max(state.weights.values(), default=0) for state in targets.values())
    return min(full_weight, live)


def _replicas(state: VariantState, remove: tuple[str, ...]) -> dict[str, int]:
    names = [revision.name for revision in state.revisions if revision.name not in remove]
    if state.desired is not None and state.startable and state.desired not in names:
        names.append(state.desired)
    return dict.fromkeys(names, 0 if state.suspended else state.pods)


def _superseded(state: VariantState, traffic: str | None) -> tuple[str, ...]:
    """Earlier revisions of the variant: kept while the next one is being built, gone once it is there."""
    if state.ready(state.desired) < state.pods:
        return ()
    needed = {state.desired, traffic}
    names = (revision.name for revision in state.revisions)
    return tuple(name for name in names if name not in needed and not state.weight(name))
