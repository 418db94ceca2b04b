"""Status and Events from a plan."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion_operator import conditions, naming
from diffusion_operator.api.status import (
    AnalysisStatus,
    CheckStatus,
    ComponentStatus,
    Condition,
    DiffusionPipelineStatus,
    PicturesStatus,
    SourceStatus,
    Summary,
    TargetStatus,
)
from diffusion_operator.conditions import Finding, Reason, Type
from diffusion_operator.manifests.event import EventNote
from diffusion_operator.plan import collection, memory
from diffusion_operator.plan.builds import Builds, names
from diffusion_operator.plan.estimate import with_estimate
from diffusion_operator.plan.findings import told
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.parts import parts
from diffusion_operator.plan.results import side_by_side
from diffusion_operator.plan.serving import TargetPlan, Targets
from diffusion_operator.plan.steps import Step
from diffusion_operator.plan.steps import status as step_status
from diffusion_operator.rollout import Note, Strategy

JsonObject = dict[str, Any]

GOOD_NEWS = frozenset({Type.ENGINES_READY, Type.AVAILABLE, Type.ROLLOUT_COMPLETE, Type.READY})


@dataclass(frozen=True)
class Moment:
    """What a status is about: generation of the spec, time, and the conditions before."""

    generation: int
    now: str
    before: Mapping[str, Condition]


def moment(generation: int, now: str, status: JsonObject) -> Moment:
    """The moment; conditions that this version cannot read count as absent."""
    before: dict[str, Condition] = {}
    for item in status.get("conditions", []):
        try:
            before[item["type"]] = Condition.model_validate(item)
        except (ValueError, KeyError, TypeError):
            continue
    return Moment(generation, now, before)


def with_ready(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings and their sum."""
    return (*findings, conditions.ready(findings))


def only_conditions(at: Moment, findings: Sequence[Finding]) -> DiffusionPipelineStatus:
    """A status for a spec that cannot be planned."""
    return DiffusionPipelineStatus(
        observed_generation=at.generation,
        conditions=conditions.merge(findings, at.before, at.generation, at.now),
    )


def full(
    at: Moment,
    findings: Sequence[Finding],
    observed: Observed,
    builds: Builds | None,
    plans: Sequence[TargetPlan],
) -> DiffusionPipelineStatus:
    """The whole status."""
    return DiffusionPipelineStatus(
        observed_generation=at.generation,
        conditions=conditions.merge(findings, at.before, at.generation, at.now),
        summary=_summary(observed, builds, plans),
        source=_source(builds.fetch) if builds is not None else None,
        components={name: _component(name, builds, _before(observed, name)) for name in _parts(observed, builds)},
        targets=[_target(observed, plan, builds) for plan in plans],
        collection=collection.status(observed),
        ensembles=_ensembles(builds),
    )


def notes(at: Moment, findings: Iterable[Finding]) -> Iterator[EventNote]:
    """What is new and worth telling: trouble when its reason is new, good news when it has become true."""
    said: set[str] = set()
    for finding in findings:
        before = at.before.get(finding.type)
        trouble = conditions.is_trouble(finding)
        known = before is not None and (before.status, before.reason) == (str(finding.ok), finding.reason)
        # A new generation that fails for the same reason is told again: its message is about something else.
        stale = trouble and before is not None and before.observed_generation != at.generation
        message = finding.lasting or finding.message
        if (known and not stale) or message in said:
            continue
        if trouble or (finding.ok and finding.type in GOOD_NEWS and (before is None or before.status != "True")):
            said.add(message)
            yield EventNote(warning=trouble, reason=finding.reason, message=message)


def warnings(status: DiffusionPipelineStatus, before: JsonObject) -> Iterator[EventNote]:
    """Warnings of targets that the status before does not have."""
    said = {item.get("warning") for item in before.get("targets", [])}
    for text in dict.fromkeys(target.warning for target in status.targets if target.warning is not None):
        if text not in said:
            yield EventNote(warning=True, reason=Reason.GPU_TOO_SMALL, message=text)


def step_notes(targets: Targets) -> Iterator[EventNote]:
    """Every step that a canary takes, once."""
    for plan in targets.plans:
        note = plan.step.notes.get(plan.state.desired or "")
        text = _step_text(targets.strategy, note) if note is not None and plan.note is not None else ""
        if text:
            message = f"Target {plan.target.name}: canary {plan.state.desired} {text}."
            yield EventNote(warning=False, reason=Reason.CANARY_PROGRESSING, message=message)


def _step_text(strategy: Strategy, note: Note) -> str:
    """Empty where there is nothing to tell: what is rejected is told as a condition."""
    if note.phase == "Pictures":
        return "is compared by its pictures" if note.settled else "is started"
    if note.phase == "Step":
        weight = strategy.weights[note.step]
        verb = "gets" if note.settled else "is to get"
        return f"{verb} {weight} % of the requests (step {note.step + 1} of {len(strategy.weights)})"
    return "has passed and grows to full size" if note.phase == "Promoting" else ""


def _summary(observed: Observed, builds: Builds | None, plans: Sequence[TargetPlan]) -> Summary:
    skus = {plan.target.sku for plan in plans}
    wanted, done = (
        (builds.engines_wanted, builds.engines_done) if builds else (len(_parts(observed, builds)) * len(skus), 0)
    )
    serving = sum(plan.available for plan in plans)
    return Summary(engines=f"{done}/{wanted}", targets=f"{serving}/{len(plans)}", canary=_canary_column(plans))


def _canary_column(plans: Sequence[TargetPlan]) -> str | None:
    """Share and verdict of the canary, in a few words; of an experiment the variants that have their share."""
    whole = {item.variant.name: True for plan in plans for item in plan.variants}
    for item in (item for plan in plans for item in plan.variants):
        whole[item.variant.name] = whole[item.variant.name] and item.complete
    if whole:
        return f"A/B {sum(whole.values())}/{len(whole)}"
    plan = next((plan for plan in plans if plan.note is not None and plan.note.phase != "Served"), None)
    if plan is None or plan.note is None:
        return None
    verdict = told(plan)
    if plan.step.progress == "Rejected":
        return f"rejected: {verdict.reason}" if verdict is not None else "rejected"
    if plan.step.progress == "Promoting":
        return "promoting"
    return f"{plan.step.weight}% {verdict.outcome if verdict is not None else 'Starting'}"


def _parts(observed: Observed, builds: Builds | None) -> tuple[str, ...]:
    return builds.parts if builds is not None else names(parts(observed.spec))


def _source(fetch: Step) -> SourceStatus:
    basics = step_status(fetch).model_dump()
    return SourceStatus(**basics, pipeline_class=fetch.result.get("pipelineClass"))


def _before(observed: Observed, name: str) -> JsonObject:
    found: JsonObject = observed.status.get("components", {}).get(name, {})
    return found


def _component(name: str, builds: Builds | None, before: JsonObject) -> ComponentStatus:
    export = builds.exports.get(name) if builds is not None else None
    skus = builds.skus if builds is not None else ()
    compiles = builds.compiles if builds is not None else {}
    earlier = before.get("skus", {})
    engines = {sku: with_estimate(step_status(compiles.get((name, sku))), earlier.get(sku, {})) for sku in skus}
    return ComponentStatus(**with_estimate(step_status(export), before).model_dump(), skus=engines)


def _target(observed: Observed, plan: TargetPlan, builds: Builds | None) -> TargetStatus:
    state, serving = plan.state, plan.serving
    assemble = builds.assembles.get(plan.target.sku) if builds is not None else None
    needed = assemble.result.get("vramBytes") or None if assemble is not None else None
    service = naming.target_service(observed.owner.name, plan.target.name)
    return TargetStatus(
        name=plan.target.name,
        repository=step_status(assemble),
        check=_check(builds.checks.get(plan.target.sku) if builds is not None else None),
        vram_bytes=needed,
        gpu_memory_bytes=memory.memory_bytes(plan.target.sku),
        warning=memory.shortage(plan.target.sku, needed),
        stable_revision=state.stable,
        next_revision=state.desired if state.desired != state.stable else None,
        canary_revision=state.desired if plan.note is not None else None,
        canary_weight=plan.step.weight if plan.note is not None else None,
        canary_ready=state.ready(state.desired) if plan.note is not None else None,
        phase=plan.note.phase if plan.note is not None else None,
        step=plan.note.step + 1 if plan.note is not None and plan.note.phase == "Step" else None,
        analysis=_analysis(plan),
        pictures=_pictures(plan.pictures),
        variants=side_by_side(observed, plan),
        history=[item.name for item in state.revisions if item.served and item.name != state.stable] or None,
        replicas=serving.replicas if serving is not None else 0,
        ready_replicas=serving.ready if serving is not None else 0,
        url=naming.url(service, observed.owner.namespace) if state.stable is not None else None,
        message=conditions.shortened(plan.trouble.message, 1000) if plan.trouble is not None else None,
    )


def _analysis(plan: TargetPlan) -> AnalysisStatus | None:
    verdict = told(plan) if plan.note is not None else None
    if verdict is None:
        return None
    return AnalysisStatus(
        verdict=verdict.outcome,
        reason=verdict.reason,
        message=conditions.shortened(verdict.message, 1000),
        numbers=dict(verdict.numbers),
    )


def _pictures(item: Step | None) -> PicturesStatus | None:
    if item is None:
        return None
    figures = {name: item.result.get(name) for name in ("worstPsnr", "worstSsim", "colorShift")}
    return PicturesStatus.model_validate(step_status(item).model_dump() | figures)


def _check(item: Step | None) -> CheckStatus:
    result = item.result if item is not None else {}
    figures = {name: result.get(name) for name in ("worstPsnr", "minPsnr", "worstLatentError")}
    return CheckStatus.model_validate(step_status(item).model_dump() | figures)


def _ensembles(builds: Builds | None) -> list[str]:
    names: set[str] = set()
    for item in builds.assembles.values() if builds is not None else ():
        names.update(str(name) for name in item.result.get("ensembles", []))
    return sorted(names)
