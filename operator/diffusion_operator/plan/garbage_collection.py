"""Garbage collection of a store: one Job an interval, which keeps what any pipeline of the namespace needs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from diffusion_contract.durations import duration_seconds
from diffusion_contract.enums import Stage
from diffusion_contract.spec.garbage_collection import GarbageCollection, GarbageCollectionStatus
from diffusion_contract.spec.jobs import merged_resources
from diffusion_operator import digests, naming
from diffusion_operator.conditions import truncated
from diffusion_operator.json_objects import parse_json_object
from diffusion_operator.manifests.common import Placement, job_placement
from diffusion_operator.manifests.job import BuildJobSpec, job_manifest
from diffusion_operator.plan.actions import Action, RecordResult, StartJob
from diffusion_operator.plan.build_jobs import SMALL_RESOURCES, StoreClaim, pod_templates
from diffusion_operator.plan.build_steps import release_job
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.settings import Settings
from diffusion_operator.views.job import JobView
from diffusion_operator.views.serving import DeploymentView
from diffusion_operator.views.storage import PipelineView

TIMEOUT_SECONDS = 3600
# One argument of a program holds 128 KiB.
DIGESTS_PER_ARGUMENT = 500


@dataclass(frozen=True)
class StoreUsers:
    """Everything in the namespace that may need artifacts of a store; `pipelines` are those on it."""

    pipelines: Iterable[PipelineView]
    jobs: Iterable[JobView]
    deployments: Iterable[DeploymentView]


def pipelines_on(store: StoreClaim, pipelines: Iterable[PipelineView]) -> list[PipelineView]:
    """Pipelines that use the store."""
    return [pipeline for pipeline in pipelines if pipeline.claim == store.claim]


def gc_owner(pipelines: Iterable[PipelineView]) -> str | None:
    """The one of the pipelines on a store that collects its garbage; None when no spec asks for it."""
    return min((pipeline.name for pipeline in pipelines if pipeline.collects), default=None)


def live_digests(users: StoreUsers, store: StoreClaim) -> frozenset[str]:
    """Digests of everything that a user needs.

    What a pipeline needs now are the results of its Jobs: obsolete Jobs are deleted. What is served may be older.
    """
    retained = {digest for pipeline in users.pipelines for digest in pipeline.retained_digests}
    results = [
        parse_json_object(job.annotations.get(naming.RESULT)) for job in users.jobs if job.store_uid == store.uid
    ]
    recorded = {str(result.get("digest") or "") for result in results}
    served = {deployment.repository for deployment in users.deployments}
    return frozenset((retained | recorded | served) - {""})


def is_due(observed: ObservedPipeline, store: StoreClaim) -> bool:
    """True when the spec asks for a collection in this interval and its Job does not exist."""
    name = _job_name(observed, store)
    return not observed.spec.suspend and name is not None and name not in {job.name for job in observed.jobs}


def actions(observed: ObservedPipeline, store: StoreClaim, settings: Settings) -> Iterator[Action]:
    """Start this interval's Job when it is due, record its result, and release those of earlier intervals."""
    current = _job_name(observed, store)
    views = _views(observed)
    for view in views:
        if view.unrecorded is not None:
            yield RecordResult(view.name, view.unrecorded, (Stage.GC, "", ""))
    ended = any(view.name == current and view.phase in {"Succeeded", "Failed"} for view in views)
    for view in views:
        # The last result stays in the status until there is a newer one.
        if view.name != current and not view.terminating and (ended or current is None):
            yield release_job(view, observed.owner)
    options = observed.spec.storage.gc
    if options is not None and observed.live_digests:
        yield _start(options, observed.live_digests, store, observed, settings)


def status(observed: ObservedPipeline) -> GarbageCollectionStatus | None:
    """The newest Job, as the status shows it."""
    views = sorted(_views(observed), key=lambda view: view.created_at or "")
    ended = [view for view in views if view.phase in {"Succeeded", "Failed"}]
    if not views or observed.spec.storage.gc is None:
        return None
    view = (ended or views)[-1]
    states: dict[str, Literal["Succeeded", "Failed"]] = {"Succeeded": "Succeeded", "Failed": "Failed"}
    return GarbageCollectionStatus(
        state=states.get(view.phase, "Running"),
        job=view.name,
        finished_at=view.finished_at,
        dry_run=bool(view.result.get("dryRun", False)),
        freed_bytes=view.result.get("freedBytes"),
        deleted=view.result.get("deleted"),
        retained=view.result.get("retained"),
        message=truncated(view.failure.message) if view.failure is not None else None,
    )


def _job_name(observed: ObservedPipeline, store: StoreClaim) -> str | None:
    """Name of the Job of this interval; None when this pipeline asks for no collection."""
    options = observed.spec.storage.gc
    return naming.job_name(Stage.GC, None, _key(options, store, observed.now)) if options is not None else None


def _views(observed: ObservedPipeline) -> list[JobView]:
    return [view for view in observed.jobs if view.stage == Stage.GC]


def _start(
    options: GarbageCollection, keep: frozenset[str], store: StoreClaim, observed: ObservedPipeline, settings: Settings
) -> StartJob:
    jobs = settings.jobs.merged(observed.spec.jobs)
    request = BuildJobSpec(
        stage=Stage.GC,
        key=_key(options, store, observed.now),
        arguments=tuple(_arguments(options, sorted(keep))),
        resources=merged_resources(SMALL_RESOURCES, jobs.resources),
        timeout_seconds=TIMEOUT_SECONDS,
        claim=store.claim,
        store_uid=store.uid,
        placement=job_placement(jobs, None, Placement()),
        labels=tuple(sorted((jobs.labels or {}).items())),
        annotations=tuple(sorted((jobs.annotations or {}).items())),
        pod_templates=pod_templates(settings.jobs, observed.spec.jobs),
        node=store.node,
    )
    return StartJob(job_manifest(request, observed.owner, settings))


def _arguments(options: GarbageCollection, keep: list[str]) -> Iterator[str]:
    for first in range(0, len(keep), DIGESTS_PER_ARGUMENT):
        yield from ("--keep", ",".join(keep[first : first + DIGESTS_PER_ARGUMENT]))
    yield from ("--grace", options.grace)
    if options.dry_run:
        yield "--dry-run"


def _key(options: GarbageCollection, store: StoreClaim, now: datetime) -> str:
    interval = int(now.timestamp()) // duration_seconds(options.interval)
    inputs = {"uid": store.uid, "settings": options.model_dump(mode="json"), "interval": interval}
    return digests.build_key(Stage.GC, store.claim, inputs)
