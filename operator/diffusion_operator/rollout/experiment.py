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
        required_pods: that its share needs.
        startable: a Deployment may be created: there is a stable revision that works.
        share_frozen: a revision that is neither stable nor a variant keeps a share: the stable one has no ready pod.
    """

    desired: str | None
    revisions: tuple[RevisionState, ...]
    weights: Mapping[str, int]
    required_pods: int
    startable: bool = True
    suspended: bool = False
    share_frozen: bool = False

    @property
    def serving_revision(self) -> str | None:
        """The ready revision that has a share now."""
        sharing = [revision.name for revision in self.revisions if revision.ready and self.weight(revision.name)]
        return max(sharing, key=self.weight, default=None)


@dataclass(frozen=True)
class VariantDecision:
    """What to do now with one variant on one target.

    Attributes:
        weight: percentage of the requests that it gets; what it lacks of its share stays with the stable revision.
        serving_revision: revision that gets it; None when none does.
        replicas: pods of every revision that is to exist.
    """

    weight: int = 0
    serving_revision: str | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    removals: tuple[str, ...] = ()


def decide_variant(weight: int, targets: Mapping[str, VariantState]) -> Mapping[str, VariantDecision]:
    """What to do now with a variant on each target; a share grows only to as many ready pods as it needs.

    Args:
        weight: percentage that the spec gives it.
        targets: of the pipeline, all of them.
    """
    serving_revisions = _serving_revisions(targets)
    share = _weight(weight, targets, serving_revisions)
    decisions = {}
    for name, state in targets.items():
        serving = serving_revisions.get(name) if share else None
        remove = _superseded(state, serving)
        decisions[name] = VariantDecision(share, serving, _replicas(state, remove), remove)
    return decisions


def _serving_revisions(targets: Mapping[str, VariantState]) -> dict[str, str]:
    """Revision by target; nothing when there is a target without a ready one."""
    if any(state.share_frozen for state in targets.values()):
        return {}
    if all(_can_take_over(state) for state in targets.values()):
        return {name: state.desired for name, state in targets.items() if state.desired is not None}
    present = {name: state.serving_revision for name, state in targets.items() if state.serving_revision is not None}
    return present if len(present) == len(targets) else {}


def _can_take_over(state: VariantState) -> bool:
    """Pods that are lost later do not take a share away that has ready ones."""
    return state.ready(state.desired) >= (1 if state.weight(state.desired) else state.required_pods)


def _weight(full_weight: int, targets: Mapping[str, VariantState], serving_revisions: Mapping[str, str]) -> int:
    if not serving_revisions:
        return 0
    if all(state.ready(serving_revisions[name]) >= state.required_pods for name, state in targets.items()):
        return full_weight
    live = max(max(state.weights.values(), default=0) for state in targets.values())
    return min(full_weight, live)


def _replicas(state: VariantState, remove: tuple[str, ...]) -> dict[str, int]:
    names = [revision.name for revision in state.revisions if revision.name not in remove]
    if state.desired is not None and state.startable and state.desired not in names:
        names.append(state.desired)
    return dict.fromkeys(names, 0 if state.suspended else state.required_pods)


def _superseded(state: VariantState, serving: str | None) -> tuple[str, ...]:
    """Earlier revisions of the variant: kept while the next one is being built, gone once it is there."""
    if state.ready(state.desired) < state.required_pods:
        return ()
    needed = {state.desired, serving}
    names = (revision.name for revision in state.revisions)
    return tuple(name for name in names if name not in needed and not state.weight(name))
