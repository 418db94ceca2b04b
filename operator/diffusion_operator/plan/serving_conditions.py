"""The conditions Available and RolloutComplete: first the decision, then the text for it."""

from collections.abc import Iterable, Sequence

from diffusion_contract.durations import duration_seconds
from diffusion_operator import naming
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.plan.build_conditions import build_problem, first_problem
from diffusion_operator.plan.experiments import VariantPlan
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.plan.serving import TargetPlan
from diffusion_operator.views.base import parse_time

NOTHING_SERVED = "Nothing is served while spec.suspend is true."


def available(observed: ObservedPipeline, plans: Sequence[TargetPlan]) -> ConditionUpdate:
    """Whether every target answers requests."""
    kind, unavailable = ConditionType.AVAILABLE, [plan for plan in plans if not plan.available]
    if not unavailable:
        return ConditionUpdate(kind, Reason.SERVING, _serving_text(observed, plans), ok=True)
    if observed.spec.suspend:
        return ConditionUpdate(kind, Reason.SUSPENDED, NOTHING_SERVED)
    problem = _room(unavailable) or first_problem(observed, kind, (plan.context.problem for plan in unavailable))
    if problem is not None:
        return problem
    names = ", ".join(plan.target.name for plan in unavailable)
    if not any(plan.state.revisions for plan in unavailable):
        return ConditionUpdate(kind, Reason.WAITING_FOR_REPOSITORY, "Waiting for the repository.")
    if any(_has_lost_readiness(observed, plan) for plan in unavailable):
        text = f"Target {names}: the server has started and is not ready any more; see kubectl describe pod."
        return ConditionUpdate(kind, Reason.NOT_READY, text)
    text = f"Target {names}: the server is starting; it is ready once every ensemble has answered a request."
    return ConditionUpdate(kind, Reason.STARTING, text)


def rollout_complete(observed: ObservedPipeline, plans: Sequence[TargetPlan]) -> ConditionUpdate:
    """Whether every target serves the desired revision, and nothing else."""
    kind, incomplete = ConditionType.ROLLOUT_COMPLETE, [plan for plan in plans if plan.decision.status != "Complete"]
    if not incomplete and any(plan.variants for plan in plans) and not observed.spec.suspend:
        return _experiment(observed, plans)
    if not incomplete:
        text = ", ".join(f"{plan.target.name} serves {plan.state.stable}" for plan in plans)
        return ConditionUpdate(kind, Reason.COMPLETE, f"{text}.", ok=True)
    if observed.spec.suspend:
        return ConditionUpdate(kind, Reason.SUSPENDED, NOTHING_SERVED)
    problem = _final_state(observed, incomplete)
    problem = problem or first_problem(observed, kind, (plan.context.problem for plan in incomplete))
    if problem is not None:
        return problem
    canary = next((plan for plan in incomplete if plan.decision.status in {"Canary", "Promoting"}), None)
    if canary is not None:
        return ConditionUpdate(kind, Reason.CANARY_PROGRESSING, _canary_text(observed, canary))
    return ConditionUpdate(kind, *_rollout_progress(incomplete[0]))


def _final_state(observed: ObservedPipeline, plans: Sequence[TargetPlan]) -> ConditionUpdate | None:
    """A rollout that nothing but another spec changes."""
    rollout = observed.spec.rollout
    if rollout is not None and rollout.rollback_to is not None and any(plan.state.desired is None for plan in plans):
        text = _not_kept_text(rollout.rollback_to, plans)
        return ConditionUpdate(ConditionType.ROLLOUT_COMPLETE, Reason.REVISION_NOT_IN_HISTORY, text)
    rejected = next((plan for plan in plans if plan.decision.status == "Rejected"), None)
    if rejected is None:
        return None
    return ConditionUpdate(ConditionType.ROLLOUT_COMPLETE, Reason.CANARY_REJECTED, _rejection_text(rejected))


def _rollout_progress(plan: TargetPlan) -> tuple[Reason, str]:
    name, state = plan.target.name, plan.state
    if plan.decision.yields:
        return Reason.MAKING_ROOM, room_text(plan)
    if plan.decision.status == "Waiting":
        present = f"{state.stable} serves meanwhile" if plan.available else "nothing serves yet"
        text = f"Target {name}: the new revision is being built; {present}."
        return Reason.WAITING_FOR_REPOSITORY, text
    if plan.decision.status == "Removing":
        text = f"Target {name}: traffic goes to {state.desired}; older revisions are being removed."
        return Reason.REMOVING_OLD_REVISION, text
    present = f"; {state.stable} serves meanwhile." if state.stable not in {None, state.desired} else "."
    pods = f"{state.ready(state.desired)} of {state.replicas} pods ready"
    return Reason.ROLLING_OUT, f"Target {name}: revision {state.desired} has {pods}{present}"


def _room(plans: Sequence[TargetPlan]) -> ConditionUpdate | None:
    yielding = next((plan for plan in plans if plan.decision.yields), None)
    if yielding is None:
        return None
    return ConditionUpdate(ConditionType.AVAILABLE, Reason.MAKING_ROOM, room_text(yielding))


def room_text(plan: TargetPlan) -> str:
    """Why the stable revision of the target has no pods."""
    user = f"revision {plan.state.desired}" if plan.state.desired is not None else "the build of the next revision"
    return (
        f"Target {plan.target.name}: no GPU is free for {user}, so revision {plan.state.stable} is scaled to zero "
        "meanwhile (rollout.surge: 0); it comes back if that fails."
    )


def _experiment(observed: ObservedPipeline, plans: Sequence[TargetPlan]) -> ConditionUpdate:
    """A variant that cannot be served first, then one that is incomplete."""
    kind, pairs = ConditionType.ROLLOUT_COMPLETE, [(plan, variant) for plan in plans for variant in plan.variants]
    for plan, variant in pairs:
        cause = _variant_failure(observed, plan, variant)
        if cause:
            return ConditionUpdate(kind, Reason.VARIANT_FAILED, _variant_failure_text(plan, variant, cause))
    for plan, variant in pairs:
        if not variant.is_complete:
            return ConditionUpdate(kind, Reason.EXPERIMENT_STARTING, _variant_progress_text(plan, variant))
    text = _experiment_text(variant for _, variant in pairs)
    return ConditionUpdate(kind, Reason.EXPERIMENT_RUNNING, text, ok=True)


def _variant_failure(observed: ObservedPipeline, plan: TargetPlan, variant: VariantPlan) -> str:
    """What needs a person's action before the variant can be served; empty when nothing does."""
    if variant.duplicate_of:
        return f"it is the same as {variant.duplicate_of}, so there is nothing to compare"
    steps = variant.builds.pipeline_steps() if variant.builds is not None else ()
    problem = build_problem(observed, ConditionType.ROLLOUT_COMPLETE, steps)
    problem = problem or first_problem(observed, ConditionType.ROLLOUT_COMPLETE, (variant.problem,))
    if problem is not None:
        return (problem.event_message or problem.message) if problem.reason != Reason.WAITING_FOR_GPU else ""
    rollout, candidate = observed.spec.rollout, variant.state.find(variant.state.desired)
    if rollout is None or candidate is None or candidate.was_available:
        return ""
    created = next((view.created_at for view in plan.context.deployments if view.revision == candidate.name), "")
    late = (observed.now - parse_time(created)).total_seconds() >= duration_seconds(rollout.progress_deadline)
    return f"its pods were not ready within {rollout.progress_deadline} (progressDeadline)" if late else ""


def _has_lost_readiness(observed: ObservedPipeline, plan: TargetPlan) -> bool:
    stable = plan.state.stable
    pods = observed.pods_of(plan.target.name, stable) if stable is not None else []
    return any(pod.has_lost_readiness for pod in pods)


def _serving_text(observed: ObservedPipeline, plans: Sequence[TargetPlan]) -> str:
    ready = sum(plan.serving.ready for plan in plans if plan.serving is not None)
    text = f"{ready} pods serve at {naming.service_url(observed.owner.name, observed.owner.namespace)}."
    idle = ", ".join(plan.target.name for plan in plans if plan.scaled_to_zero)
    return f"{text} Target {idle} is scaled to zero until a request comes." if idle else text


def _not_kept_text(revision: str, plans: Sequence[TargetPlan]) -> str:
    present = ", ".join(sorted({item.name for plan in plans for item in plan.state.revisions})) or "none"
    return (
        f"spec.rollout.rollbackTo: revision {revision} is not in the history of every target; available: {present}. "
        "The present revision continues to serve."
    )


def _rejection_text(plan: TargetPlan) -> str:
    verdict = plan.latest_verdict
    cause = f"{verdict.reason}: {verdict.message}" if verdict is not None else "no reason is known."
    return (
        f"Target {plan.target.name}: canary {plan.state.desired} was rejected. {cause} "
        f"{plan.state.stable} serves; a changed spec is rolled out immediately."
    )


def _canary_text(observed: ObservedPipeline, plan: TargetPlan) -> str:
    state, verdict = plan.state, plan.latest_verdict
    text = f"Target {plan.target.name}: canary {state.desired}: {_canary_stage(observed, plan)}; "
    text += f"{state.stable} serves the rest."
    return f"{text} {verdict.message}" if verdict is not None else text


def _canary_stage(observed: ObservedPipeline, plan: TargetPlan) -> str:
    progress, rollout = plan.progress, observed.spec.rollout
    if progress is not None and progress.phase == "ImageComparison" and progress.observing:
        return "image comparison, no traffic yet"
    if progress is not None and progress.phase == "Step":
        count = len(rollout.steps) if rollout is not None else 0
        return f"it gets {plan.decision.weight} % of the requests (step {progress.step + 1} of {count})"
    if plan.decision.status == "Promoting":
        ready = plan.state.ready(plan.state.desired)
        return f"scaling up ({ready} of {plan.state.replicas} pods ready)"
    return "its pods are starting"


def _variant_failure_text(plan: TargetPlan, variant: VariantPlan, cause: str) -> str:
    return (
        f"Variant {variant.variant.name} on target {plan.target.name}: {cause.rstrip('. ')}. What it lacks of its "
        f"{variant.variant.weight} % of the requests goes to the stable revision meanwhile: change it or remove it "
        "(spec.rollout.experiment.variants)."
    )


def _variant_progress_text(plan: TargetPlan, variant: VariantPlan) -> str:
    stage = "its pods are starting" if variant.state.desired is not None else "it is being built"
    return (
        f"Variant {variant.variant.name} on target {plan.target.name}: {stage}; it gets {variant.decision.weight} % of "
        f"the requests now and {variant.variant.weight} % once it is ready on every target."
    )


def _experiment_text(variants: Iterable[VariantPlan]) -> str:
    weights = {variant.variant.name: variant.decision.weight for variant in variants}
    shares = ", ".join(f"{name} {weight} %" for name, weight in weights.items())
    return f"Experiment running: stable gets {100 - sum(weights.values())} % of the requests, {shares}."
