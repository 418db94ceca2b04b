"""Moving one target from its stable revision to the desired one at once; pure."""

from diffusion_operator.rollout.state import Note, Progress, RevisionState, RolloutState, RolloutStep


def step(state: RolloutState, history: int = 0) -> RolloutStep:
    """The next safe step: traffic moves only to a ready revision, then, once seen, the old one goes.

    Args:
        state: of the target.
        history: how many revisions that served before are kept without pods.
    """
    if state.desired is None:
        return hold(state, history)
    replicas = 0 if state.suspended else state.replicas
    traffic = _traffic(state, state.desired)
    idle, remove = retire(state, {state.desired}, history)
    canary, weight = kept_share(state) if traffic == state.stable else (None, 0)
    return RolloutStep(
        traffic=traffic,
        desired_replicas=replicas,
        progress=_progress(state, state.desired, traffic, remove),
        scale=_scale(state, skip={state.desired, *remove, *idle}) | idle,
        remove=remove,
        canary=canary,
        weight=weight,
        notes=served_note(state) if history else {},
    )


def hold(state: RolloutState, history: int) -> RolloutStep:
    """Nothing new to serve yet: what serves goes on, what an older spec started without traffic goes."""
    idle, remove = retire(state, {state.stable} if state.stable else set(), history)
    canary, weight = kept_share(state)
    return RolloutStep(
        traffic=state.stable,
        desired_replicas=None,
        progress="Suspended" if state.suspended else "Waiting",
        scale=_scale(state, skip={*remove, *idle}) | idle,
        remove=remove,
        canary=canary,
        weight=weight,
        notes=served_note(state) if history else {},
    )


def retire(state: RolloutState, keep: set[str], history: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """What becomes of the revisions that are not needed: the pods to set, and the revisions to delete.

    What served before stays without pods as far as the history reaches, and so does what was rejected as long as the
    spec may still ask for it. Nothing goes that has a share of the traffic.
    """
    others = [item for item in state.revisions if item.name not in keep and not state.weight(item.name)]
    useless = [item for item in others if item.name != state.stable or (state.is_lost and state.desired is not None)]
    served = [item.name for item in useless if item.served and item.name != state.stable]
    kept = set(served[max(0, len(served) - history) :])
    kept |= {item.name for item in useless if item.rejected and state.desired in {None, item.name}}
    idle = {item.name: 0 for item in useless if item.name in kept and item.replicas}
    return idle, tuple(item.name for item in useless if item.name not in kept)


def kept_share(state: RolloutState) -> tuple[str | None, int]:
    """The canary and its share that stay although it is not wanted: the stable revision has no pod to take over."""
    if state.ready(state.stable) or state.suspended:
        return None, 0
    share = max(state.weights, key=state.weight, default=None)
    return (share, state.weight(share)) if state.ready(share) else (None, 0)


def served_note(state: RolloutState) -> dict[str, Note]:
    """That the stable revision is one that can be gone back to."""
    found = state.find(state.stable)
    if found is None or not found.proven or (found.note is not None and found.note.phase == "Served"):
        return {}
    verdict = found.note.verdict if found.note is not None else None
    return {found.name: Note("Served", served=True, verdict=verdict)}


def _traffic(state: RolloutState, desired: str) -> str:
    if state.find(state.stable) is None or state.stable is None:
        return desired
    ready = state.ready(desired) >= max(1, state.replicas)
    return desired if ready or state.suspended else state.stable


def _progress(state: RolloutState, desired: str, traffic: str, remove: tuple[str, ...]) -> Progress:
    if state.suspended:
        return "Suspended"
    candidate = state.find(desired)
    if traffic != desired or candidate is None or _is_starting(candidate, state.replicas):
        return "Starting"
    older = [item for item in state.revisions if item.name != desired and (item.replicas or not item.served)]
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
        past = item.name != state.stable and (item.served or item.rejected) and not state.weight(item.name)
        wanted = 0 if state.suspended or past else item.replicas or state.replicas
        if item.name not in skip and wanted != item.replicas:
            scale[item.name] = wanted
    return scale
