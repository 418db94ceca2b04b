"""Moving one target to the desired revision where no GPU may be free for both (`rollout.surge: 0`); pure, stateless.

As `rolling`, until something waits for a GPU that the stable revision holds. Where the stable revision stands is an
annotation of its Deployment:

========  ==================================================  ======================================================
phase     the stable revision has                             next phase
========  ==================================================  ======================================================
Served    its pods, also while another one is built beside    a compile Job or a pod of the candidate waits for a GPU:
                                                              Yielding
Yielding  no pods                                             the build failed, the candidate was rejected, or the
                                                              stable revision is desired again: Served
========  ==================================================  ======================================================

While it yields, or has no ready pod, the candidate is Promoting: not ready within progress_deadline, it is Rejected,
and stays so until another revision is desired. A phase is written before pods go, the candidate's before that of the
stable revision, so that a pass that is cut off anywhere is continued by the next one.
"""

from dataclasses import replace

from diffusion_operator.analysis.verdict import Verdict, VerdictReason
from diffusion_operator.rollout import rolling
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import RevisionState, RolloutDecision, RolloutState, Strategy


def decide(state: RolloutState, strategy: Strategy) -> RolloutDecision:
    """The next step: as `rolling.decide`, but the stable revision gives up its pods when something needs its GPUs."""
    decision, stable = rolling.decide(state, strategy.history), state.find(state.stable)
    if stable is None or state.suspended or state.has_no_working_stable:
        return decision
    candidate = state.candidate
    updates = _candidate_update(candidate, state, strategy) if candidate is not None else {}
    if (candidate is not None and candidate.is_rejected) or any(item.phase == "Rejected" for item in updates.values()):
        decision = replace(decision, stable=state.stable, desired_replicas=0, status="Rejected")
        return _with_updates(decision, updates | _served_again(stable))
    changes = {name: count for name, count in decision.replica_changes.items() if name != stable.name}
    if decision.stable != state.stable:
        return _with_updates(replace(decision, replica_changes=changes), updates | _served_again(stable))
    if not _yields(state, stable):
        return _with_updates(decision, updates | _served_again(stable))
    if stable.replicas:
        changes[stable.name] = 0
    marks = {name: item for name, item in decision.progress_updates.items() if name != stable.name}
    decision = replace(decision, replica_changes=changes, progress_updates=marks, yields=True)
    return _with_updates(decision, updates | _yielding(stable))


def _yields(state: RolloutState, stable: RevisionState) -> bool:
    """Whether the stable revision gives up its pods; once it has begun, until the end of the build and the rollout."""
    if state.desired == stable.name or (state.desired is None and not state.is_building):
        return False
    return stable.is_yielding or state.waits_for_gpu


def _candidate_update(candidate: RevisionState, state: RolloutState, strategy: Strategy) -> dict[str, RolloutProgress]:
    """Promoting from the moment when it can get the GPUs; Rejected when it is not ready in time."""
    present = candidate.progress or RolloutProgress("Promoting")
    if candidate.is_rejected or candidate.ready >= max(1, state.replicas):
        return {}
    stable = state.find(state.stable)
    if candidate.progress is None or present.phase != "Promoting":
        promotes = stable is not None and (stable.is_yielding or not stable.ready)
        return {candidate.name: RolloutProgress("Promoting", was_stable=candidate.was_stable)} if promotes else {}
    if candidate.phase_seconds < strategy.progress_deadline:
        return {}
    text = f"Its pods were not ready within {strategy.progress_deadline} seconds (progressDeadline)."
    verdict = Verdict("Fail", VerdictReason.NOT_READY, text)
    return {candidate.name: replace(present, phase="Rejected", verdict=verdict)}


def _yielding(stable: RevisionState) -> dict[str, RolloutProgress]:
    return {} if stable.is_yielding else {stable.name: RolloutProgress("Yielding", was_stable=True)}


def _served_again(stable: RevisionState) -> dict[str, RolloutProgress]:
    return {stable.name: RolloutProgress("Served", was_stable=True)} if stable.is_yielding else {}


def _with_updates(decision: RolloutDecision, updates: dict[str, RolloutProgress]) -> RolloutDecision:
    """The candidate's come first."""
    return replace(decision, progress_updates=updates | {**decision.progress_updates, **updates})
