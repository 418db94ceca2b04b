"""Status and Events of a plan."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from diffusion_contract.engines import CHECKPOINT, engines
from diffusion_operator import conditions, naming
from diffusion_operator.api.status import (
    AnalysisStatus,
    BuildStatus,
    CheckStatus,
    ComponentStatus,
    Condition,
    DiffusionPipelineStatus,
    ImageComparisonStatus,
    SourceStatus,
    Summary,
    TargetStatus,
    VariantStatus,
)
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.event import PendingEvent
from diffusion_operator.plan import garbage_collection, images_api, memory
from diffusion_operator.plan.build_graph import BuildGraph
from diffusion_operator.plan.build_steps import BuildStep, step_status
from diffusion_operator.plan.context import PlanContext
from diffusion_operator.plan.experiments import VariantPlan
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.plan.serving import TargetPlan, TargetPlans
from diffusion_operator.plan.serving_conditions import room_text
from diffusion_operator.rollout.progress import RolloutProgress
from diffusion_operator.rollout.state import RevisionState, Strategy
from diffusion_operator.views.base import parse_time, rfc3339

EVENT_ON_TRUE = frozenset(
    {
        ConditionType.ENGINES_READY,
        ConditionType.AVAILABLE,
        ConditionType.ROLLOUT_COMPLETE,
        ConditionType.API_AVAILABLE,
        ConditionType.READY,
    }
)
DIGITS = 6
BuildStatusT = TypeVar("BuildStatusT", bound=BuildStatus)


@dataclass(frozen=True)
class StatusBasis:
    """What a status is written on: generation of the spec, time (RFC 3339), and the present conditions by type."""

    generation: int
    now: str
    present: Mapping[str, Condition]


def status_basis(generation: int, now: str, status: JsonObject) -> StatusBasis:
    """The basis; conditions that this version cannot read count as absent."""
    present: dict[str, Condition] = {}
    for entry in status.get("conditions", []):
        try:
            present[entry["type"]] = Condition.model_validate(entry)
        except (ValueError, KeyError, TypeError):
            continue
    return StatusBasis(generation, now, present)


def with_ready(updates: Sequence[ConditionUpdate]) -> tuple[ConditionUpdate, ...]:
    """The updates and their sum."""
    return (*updates, conditions.ready_condition(updates))


def conditions_only(basis: StatusBasis, updates: Sequence[ConditionUpdate]) -> DiffusionPipelineStatus:
    """A status for a spec that cannot be planned."""
    return DiffusionPipelineStatus(
        observed_generation=basis.generation,
        conditions=conditions.merge_conditions(updates, basis.present, basis.generation, basis.now),
    )


def pipeline_status(
    basis: StatusBasis, updates: Sequence[ConditionUpdate], context: PlanContext, targets: TargetPlans
) -> DiffusionPipelineStatus:
    """The whole status."""
    observed, builds = context.observed, context.builds
    components = [engine.name for engine in engines(observed.spec)]
    present = observed.status.get("components", {})
    return DiffusionPipelineStatus(
        observed_generation=basis.generation,
        conditions=conditions.merge_conditions(updates, basis.present, basis.generation, basis.now),
        summary=_summary(len(components), builds, targets.plans),
        source=_with_report(SourceStatus, builds.fetches[CHECKPOINT]) if builds is not None else None,
        components={name: _component(name, builds, present.get(name, {})) for name in components},
        targets=[_target(observed, plan, builds) for plan in targets.plans],
        api=images_api.status(observed),
        garbage_collection=garbage_collection.status(observed),
        ensembles=_ensembles(builds),
    )


def condition_events(basis: StatusBasis, updates: Iterable[ConditionUpdate]) -> Iterator[PendingEvent]:
    """Events for what is new: a problem when its reason is new, good news when it has become true."""
    sent: set[str] = set()
    for update in updates:
        present = basis.present.get(update.type)
        problem = conditions.needs_action(update)
        same = present is not None and (present.status, present.reason) == (str(update.ok), update.reason)
        # A new generation that fails for the same reason is reported again: its message is about something else.
        stale = problem and present is not None and present.observed_generation != basis.generation
        message = update.event_message or update.message
        if (same and not stale) or message in sent:
            continue
        became_true = update.ok and (present is None or present.status != "True")
        if problem or (became_true and update.type in EVENT_ON_TRUE):
            sent.add(message)
            yield PendingEvent(warning=problem, reason=update.reason, message=message)


def gpu_warnings(status: DiffusionPipelineStatus, present: JsonObject) -> Iterator[PendingEvent]:
    """Warnings of targets that the present status does not have."""
    present_warnings = {entry.get("warning") for entry in present.get("targets", [])}
    for text in dict.fromkeys(target.warning for target in status.targets if target.warning is not None):
        if text not in present_warnings:
            yield PendingEvent(warning=True, reason=Reason.INSUFFICIENT_GPU_MEMORY, message=text)


def room_events(targets: TargetPlans) -> Iterator[PendingEvent]:
    """Events for a stable revision that is scaled to zero to make room, and for its return."""
    for plan in targets.plans:
        stable = plan.state.find(plan.state.stable)
        update = plan.decision.progress_updates.get(plan.state.stable or "")
        if stable is None or update is None:
            continue
        if update.phase == "Yielding":
            yield PendingEvent(warning=True, reason=Reason.MAKING_ROOM, message=room_text(plan))
        elif stable.is_yielding and plan.decision.stable == stable.name:
            text = f"Target {plan.target.name}: revision {stable.name} is scaled up again."
            yield PendingEvent(warning=False, reason=Reason.MAKING_ROOM, message=text)


def canary_events(targets: TargetPlans) -> Iterator[PendingEvent]:
    """One Event for every step that a canary takes."""
    for plan in targets.plans:
        update = plan.decision.progress_updates.get(plan.state.desired or "")
        text = _canary_text(targets.strategy, update) if update is not None and plan.progress is not None else ""
        if text:
            message = f"Target {plan.target.name}, canary {plan.state.desired}: {text}."
            yield PendingEvent(warning=False, reason=Reason.CANARY_PROGRESSING, message=message)


def with_estimate(status: BuildStatusT, before: JsonObject) -> BuildStatusT:
    """The status with the duration of earlier builds, and when the build should be done by it; for people only.

    Args:
        status: of this pass.
        before: present status of the same component on the same SKU; may be empty.
    """
    if status.state == "Ready" and not status.cached:
        return status
    last = _last_seconds(before)
    if last is None:
        return status
    expected = None
    if status.state == "Running" and status.started_at is not None:
        expected = rfc3339(parse_time(status.started_at) + timedelta(seconds=round(last)))
    return status.model_copy(update={"last_seconds": last, "expected_at": expected})


def _canary_text(strategy: Strategy, progress: RolloutProgress) -> str:
    """Empty for phases that have no Event: a rejection is reported as a condition."""
    if progress.phase == "ImageComparison":
        return "image comparison started" if progress.observing else "starting"
    if progress.phase == "Step":
        weight = strategy.weights[progress.step]
        text = f"receives {weight} % of the requests" if progress.observing else f"weight set to {weight} %"
        return f"{text} (step {progress.step + 1} of {len(strategy.weights)})"
    return "passed its analysis and is being scaled to full size" if progress.phase == "Promoting" else ""


def _summary(components: int, builds: BuildGraph | None, plans: Sequence[TargetPlan]) -> Summary:
    skus = {plan.target.sku for plan in plans}
    total, ready = (builds.engine_count, builds.built_engine_count) if builds else (components * len(skus), 0)
    serving = sum(plan.available for plan in plans)
    return Summary(engines=f"{ready}/{total}", targets=f"{serving}/{len(plans)}", canary=_canary_column(plans))


def _canary_column(plans: Sequence[TargetPlan]) -> str | None:
    """Share and verdict of the canary, in a few words; of an experiment the variants that have their share."""
    complete: dict[str, bool] = {}
    for variant in (variant for plan in plans for variant in plan.variants):
        complete[variant.variant.name] = complete.get(variant.variant.name, True) and variant.is_complete
    if complete:
        return f"experiment {sum(complete.values())}/{len(complete)}"
    plan = next((plan for plan in plans if plan.progress is not None and plan.progress.phase != "Served"), None)
    if plan is None:
        return None
    verdict = plan.latest_verdict
    if plan.decision.status == "Rejected":
        return f"rejected: {verdict.reason}" if verdict is not None else "rejected"
    if plan.decision.status == "Promoting":
        return "promoting"
    return f"{plan.decision.weight}% {verdict.outcome if verdict is not None else 'Starting'}"


def _with_report(kind: type[BuildStatusT], step: BuildStep | None) -> BuildStatusT:
    """The step as this kind of status: the fields that it has beyond every build's are those of the report."""
    report = step.result if step is not None else {}
    aliases = [field.alias for name, field in kind.model_fields.items() if name not in BuildStatus.model_fields]
    return kind.model_validate(
        step_status(step).model_dump() | {alias: report.get(alias) for alias in aliases if alias}
    )


def _component(name: str, builds: BuildGraph | None, present: JsonObject) -> ComponentStatus:
    export = builds.exports.get(name) if builds is not None else None
    skus = builds.skus if builds is not None else ()
    compiles = builds.compiles if builds is not None else {}
    earlier = present.get("skus", {})
    engines = {sku: with_estimate(step_status(compiles.get((name, sku))), earlier.get(sku, {})) for sku in skus}
    return ComponentStatus(**with_estimate(step_status(export), present).model_dump(), skus=engines)


def _last_seconds(before: JsonObject) -> float | None:
    """An answer from the store takes no time, and says nothing about a build."""
    last = before.get("lastSeconds")
    if last is None and before.get("state") == "Ready" and not before.get("cached"):
        last = before.get("seconds")
    return float(last) if isinstance(last, int | float) else None


def _target(observed: ObservedPipeline, plan: TargetPlan, builds: BuildGraph | None) -> TargetStatus:
    state, serving, progress, sku = plan.state, plan.serving, plan.progress, plan.target.sku
    assemble = builds.assembles.get(sku) if builds is not None else None
    estimated_gpu_memory_bytes = (
        assemble.result.get("estimatedGPUMemoryBytes") or None if assemble is not None else None
    )
    service = naming.target_service_name(observed.owner.name, plan.target.name)
    problem, comparison = plan.context.problem, plan.context.comparison
    return TargetStatus(
        name=plan.target.name,
        repository=step_status(assemble),
        check=_with_report(CheckStatus, builds.parity_steps.get(sku) if builds is not None else None),
        estimatedGPUMemoryBytes=estimated_gpu_memory_bytes,
        gpu_memory_bytes=memory.memory_bytes(sku),
        warning=memory.memory_warning(sku, estimated_gpu_memory_bytes),
        stable_revision=state.stable,
        desired_revision=state.desired if state.desired != state.stable else None,
        canary_revision=state.desired if progress is not None else None,
        canary_weight=plan.decision.weight if progress is not None else None,
        canary_ready_replicas=state.ready(state.desired) if progress is not None else None,
        phase=progress.phase if progress is not None else None,
        step=progress.step + 1 if progress is not None and progress.phase == "Step" else None,
        analysis=_analysis(plan),
        image_comparison=_with_report(ImageComparisonStatus, comparison) if comparison is not None else None,
        variants=_variants(observed, plan),
        history=[item.name for item in state.revisions if item.was_stable and item.name != state.stable] or None,
        replicas=serving.replicas if serving is not None else 0,
        ready_replicas=serving.ready if serving is not None else 0,
        url=naming.service_url(service, observed.owner.namespace) if state.stable is not None else None,
        message=conditions.truncated(problem.message) if problem is not None else None,
    )


def _analysis(plan: TargetPlan) -> AnalysisStatus | None:
    verdict = plan.latest_verdict if plan.progress is not None else None
    if verdict is None:
        return None
    return AnalysisStatus(
        verdict=verdict.outcome,
        reason=verdict.reason,
        message=conditions.truncated(verdict.message),
        numbers=dict(verdict.numbers),
    )


def _variants(observed: ObservedPipeline, plan: TargetPlan) -> list[VariantStatus] | None:
    """The stable revision and every variant side by side; None without an experiment."""
    if not plan.variants or plan.split is None:
        return None
    share = plan.split.shares.get(plan.split.stable, 0)
    stable = _revision_status(observed, plan, "stable", plan.state.find(plan.decision.stable), share)
    return [stable, *(_variant(observed, plan, variant) for variant in plan.variants)]


def _variant(observed: ObservedPipeline, plan: TargetPlan, variant: VariantPlan) -> VariantStatus:
    name, state = variant.variant.name, variant.state
    revision = state.find(variant.decision.serving_revision) or state.find(state.desired)
    if revision is None:
        return VariantStatus(name=name, revision=state.desired)
    return _revision_status(observed, plan, name, revision, variant.decision.weight)


def _revision_status(
    observed: ObservedPipeline, plan: TargetPlan, name: str, revision: RevisionState | None, weight: int
) -> VariantStatus:
    if revision is None:
        return VariantStatus(name=name, weight=weight)
    window = observed.window(plan.target.name, revision.name)
    return VariantStatus(
        name=name,
        revision=revision.name,
        weight=weight,
        replicas=revision.replicas,
        ready_replicas=revision.ready,
        requests=round(window.requests),
        error_ratio=_rounded(window.failures / window.requests if window.requests else None),
        p50_seconds=_rounded(window.total.p50),
        p95_seconds=_rounded(window.total.p95),
        step_seconds=_rounded(window.step_seconds),
        mean_batch=_rounded(window.mean_batch),
    )


def _rounded(value: float | None) -> float | None:
    return round(value, DIGITS) if value is not None else None


def _ensembles(builds: BuildGraph | None) -> list[str]:
    steps = builds.assembles.values() if builds is not None else ()
    return sorted({str(name) for step in steps for name in step.result.get("ensembles", [])})
