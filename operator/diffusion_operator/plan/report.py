"""Status and Events from a plan."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion_operator import conditions, naming
from diffusion_operator.api.status import (
    CheckStatus,
    ComponentStatus,
    Condition,
    DiffusionPipelineStatus,
    SourceStatus,
    Summary,
    TargetStatus,
)
from diffusion_operator.conditions import Finding, Reason, Type
from diffusion_operator.manifests.event import EventNote
from diffusion_operator.plan import collection, memory
from diffusion_operator.plan.builds import Builds, names
from diffusion_operator.plan.estimate import with_estimate
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.parts import parts
from diffusion_operator.plan.serving import TargetPlan
from diffusion_operator.plan.steps import Step
from diffusion_operator.plan.steps import status as step_status

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
    told: set[str] = set()
    for finding in findings:
        before = at.before.get(finding.type)
        trouble = conditions.is_trouble(finding)
        known = before is not None and (before.status, before.reason) == (str(finding.ok), finding.reason)
        # A new generation that fails for the same reason is told again: its message is about something else.
        stale = trouble and before is not None and before.observed_generation != at.generation
        message = finding.lasting or finding.message
        if (known and not stale) or message in told:
            continue
        if trouble or (finding.ok and finding.type in GOOD_NEWS and (before is None or before.status != "True")):
            told.add(message)
            yield EventNote(warning=trouble, reason=finding.reason, message=message)


def warnings(status: DiffusionPipelineStatus, before: JsonObject) -> Iterator[EventNote]:
    """Warnings of targets that the status before does not have."""
    told = {item.get("warning") for item in before.get("targets", [])}
    for text in dict.fromkeys(target.warning for target in status.targets if target.warning is not None):
        if text not in told:
            yield EventNote(warning=True, reason=Reason.GPU_TOO_SMALL, message=text)


def _summary(observed: Observed, builds: Builds | None, plans: Sequence[TargetPlan]) -> Summary:
    skus = {plan.target.sku for plan in plans}
    wanted, done = (
        (builds.engines_wanted, builds.engines_done) if builds else (len(_parts(observed, builds)) * len(skus), 0)
    )
    serving = sum(plan.available for plan in plans)
    return Summary(engines=f"{done}/{wanted}", targets=f"{serving}/{len(plans)}")


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
    told = before.get("skus", {})
    engines = {sku: with_estimate(step_status(compiles.get((name, sku))), told.get(sku, {})) for sku in skus}
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
        replicas=serving.replicas if serving is not None else 0,
        ready_replicas=serving.ready if serving is not None else 0,
        url=naming.url(service, observed.owner.namespace) if state.stable is not None else None,
        message=conditions.shortened(plan.trouble.message, 1000) if plan.trouble is not None else None,
    )


def _check(item: Step | None) -> CheckStatus:
    result = item.result if item is not None else {}
    figures = {name: result.get(name) for name in ("worstPsnr", "minPsnr", "worstLatentError")}
    return CheckStatus.model_validate(step_status(item).model_dump() | figures)


def _ensembles(builds: Builds | None) -> list[str]:
    names: set[str] = set()
    for item in builds.assembles.values() if builds is not None else ():
        names.update(str(name) for name in item.result.get("ensembles", []))
    return sorted(names)
