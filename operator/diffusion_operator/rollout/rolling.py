"""Moving one target from its stable revision to the desired one at once; pure."""

from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutState, RolloutStatus


def decide(state: RolloutState, history: int = 0) -> RolloutDecision:
    """The next safe step: traffic moves only to a ready revision, then, once seen, the old one goes.

    Args:
        state: of the target.
        history: how many revisions that served before are kept without pods.
    """
    if state.desired is None:
        return wait_for_build(state, history)
    replicas = 0 if state.suspended else state.replicas
    traffic = _traffic(state, state.desired)
    idle, remove = retire_revisions(state, {state.desired}, history)
    canary, weight = frozen_share(state) if traffic == state.stable else (None, 0)
    return RolloutDecision(
        stable=traffic,
        desired_replicas=replicas,
        status=_status(state, state.desired, traffic, remove),
        replica_changes=_scale(state, skip={state.desired, *remove, *idle}) | idle,
        removals=remove,
        canary=canary,
        weight=weight,
        progress_updates=stable_update(state) if history else {},
    )


def wait_for_build(state: RolloutState, history: int) -> RolloutDecision:
    """While the desired revision is being built, the stable one serves, and unused ones are removed."""
    idle, remove = retire_revisions(state, {state.stable} if state.stable else set(), history)
    canary, weight = frozen_share(state)
    return RolloutDecision(
        stable=state.stable,
        desired_replicas=None,
        status="Suspended" if state.suspended else "Waiting",
        replica_changes=_scale(state, skip={*remove, *idle}) | idle,
        removals=remove,
        canary=canary,
        weight=weight,
        progress_updates=stable_update(state) if history else {},
    )


def retire_revisions(state: RolloutState, keep: set[str], history: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """Unneeded revisions: the number of pods of those that are retained, and those to delete.

    A revision that served before stays without pods as far as the history reaches, and so does a rejected one while
    the spec may still ask for it. A revision with a share of the traffic is never removed.
    """
    idle_stable = state.has_no_working_stable and state.desired is not None
    unused = [
        revision
        for revision in state.revisions
        if revision.name not in keep
        and not state.weight(revision.name)
        and (revision.name != state.stable or idle_stable)
    ]
    past = [revision.name for revision in unused if revision.was_stable and revision.name != state.stable]
    rejected = [revision.name for revision in unused if revision.is_rejected]
    retained = {*past[max(0, len(past) - history) :], *(name for name in rejected if state.desired in {None, name})}
    scale = {revision.name: 0 for revision in unused if revision.name in retained and revision.replicas}
    return scale, tuple(revision.name for revision in unused if revision.name not in retained)


def frozen_share(state: RolloutState) -> tuple[str | None, int]:
    """The canary and its share that must not change now: the stable revision has no pod to take over."""
    if state.ready(state.stable) or state.suspended:
        return None, 0
    share = max(state.weights, key=state.weight, default=None)
    return (share, state.weight(share)) if state.ready(share) else (None, 0)


def stable_update(state: RolloutState) -> dict[str, RolloutProgress]:
    """Records that the stable revision can be rolled back to."""
    stable = state.find(state.stable)
    if stable is None or not stable.was_available:
        return {}
    if stable.progress is not None and stable.progress.phase == "Served":
        return {}
    verdict = stable.progress.verdict if stable.progress is not None else None
    return {stable.name: RolloutProgress("Served", was_stable=True, verdict=verdict)}


def _traffic(state: RolloutState, desired: str) -> str:
    if state.find(state.stable) is None or state.stable is None:
        return desired
    ready = state.ready(desired) >= max(1, state.replicas)
    return desired if ready or state.suspended else state.stable


def _status(state: RolloutState, desired: str, traffic: str, remove: tuple[str, ...]) -> RolloutStatus:
    if state.suspended:
        return "Suspended"
    candidate = state.find(desired)
    if traffic != desired or candidate is None or _is_starting(candidate, state.replicas):
        return "Starting"
    older = [
        revision
        for revision in state.revisions
        if revision.name != desired and (revision.replicas or not revision.was_stable)
    ]
    return "Removing" if remove or older or state.stable != desired else "Complete"


def _is_starting(candidate: RevisionState, replicas: int) -> bool:
    """Neither a lost pod of a serving revision nor one that an autoscaler has scaled to zero is a rollout."""
    if replicas == 0 and candidate.replicas == 0 and candidate.was_available:
        return False
    return candidate.ready == 0 or (candidate.ready < replicas and not candidate.was_available)


def _scale(state: RolloutState, skip: set[str]) -> dict[str, int]:
    """Older revisions that stay keep their pods, none while suspended, and get them back afterwards."""
    scale = {}
    for revision in state.revisions:
        is_over = revision.was_stable or revision.is_rejected
        past = revision.name != state.stable and is_over and not state.weight(revision.name)
        replicas = 0 if state.suspended or past else revision.replicas or state.replicas
        if revision.name not in skip and replicas != revision.replicas:
            scale[revision.name] = replicas
    return scale
