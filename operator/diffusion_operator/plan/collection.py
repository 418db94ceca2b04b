"""Garbage collection of a store: one Job per interval, which keeps what any pipeline of the namespace needs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from diffusion_contract.base import seconds
from diffusion_contract.spec.collection import Collection, CollectionStatus
from diffusion_operator import digests, naming
from diffusion_operator.conditions import shortened
from diffusion_operator.manifests.job import GC, JobRequest, job
from diffusion_operator.plan.actions import Action, KeepResult, StartJob
from diffusion_operator.plan.jobs import JobView, parse_result
from diffusion_operator.plan.observed import Observed
from diffusion_operator.plan.requests import SMALL, Store
from diffusion_operator.plan.steps import MAX_MESSAGE, drop
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]

TIMEOUT_SECONDS = 3600
# One argument of a program holds 128 KiB.
DIGESTS_PER_ARGUMENT = 500


@dataclass(frozen=True)
class Neighbours:
    """Everything in the namespace that may need a store; `pipelines` are those on it."""

    pipelines: Iterable[JsonObject]
    jobs: Iterable[JsonObject]
    deployments: Iterable[JsonObject]


def users(pipelines: Iterable[JsonObject], store: Store) -> list[JsonObject]:
    """Those on the store."""
    return [item for item in pipelines if _claim(item) == store.claim]


def collector(pipelines: Iterable[JsonObject]) -> str | None:
    """Which of the pipelines on a store cleans it; None when nobody asks for it."""
    return min((item["metadata"]["name"] for item in pipelines if _collects(item)), default=None)


def needed(found: Neighbours, store: Store) -> frozenset[str]:
    """Digests of all that anybody needs.

    What a pipeline needs now are the results of its Jobs: those that it needs no more are deleted. What is served
    may be older than that.
    """
    keep = {str(digest) for item in found.pipelines for digest in item["spec"].get("storage", {}).get("retain") or ()}
    for item in found.jobs:
        notes = item["metadata"].get("annotations", {})
        if notes.get(naming.STORE_UID) == store.uid:
            keep.add(str(parse_result(notes.get(naming.RESULT)).get("digest") or ""))
    keep |= {item["metadata"].get("annotations", {}).get(naming.REPOSITORY, "") for item in found.deployments}
    return frozenset(keep - {""})


def is_wanted(observed: Observed, store: Store) -> bool:
    """True when this pipeline asks for a collection in this interval and its Job does not exist."""
    name = _job_name(observed, store)
    return not observed.spec.suspend and name is not None and name not in {view.name for view in observed.jobs}


def actions(observed: Observed, store: Store, settings: Settings) -> Iterator[Action]:
    """Start this interval's Job when it is due, keep what it says, and drop those of earlier intervals."""
    current = _job_name(observed, store)
    views = _views(observed)
    for view in views:
        if view.record is not None:
            yield KeepResult(view.name, view.record, (GC, "", ""))
    ended = any(view.name == current and view.phase in {"Succeeded", "Failed"} for view in views)
    for view in views:
        # The last result stays in the status until there is a newer one.
        if view.name != current and not view.terminating and (ended or current is None):
            yield drop(view, observed.owner)
    wanted = observed.spec.storage.gc
    if wanted is not None and observed.keep:
        yield _start(wanted, observed.keep, store, observed, settings)


def status(observed: Observed) -> CollectionStatus | None:
    """The newest Job, as the status shows it."""
    views = sorted(_views(observed), key=lambda view: view.created_at or "")
    ended = [view for view in views if view.phase in {"Succeeded", "Failed"}]
    return _status((ended or views)[-1]) if views and observed.spec.storage.gc is not None else None


def _status(view: JobView) -> CollectionStatus:
    states: dict[str, Literal["Succeeded", "Failed"]] = {"Succeeded": "Succeeded", "Failed": "Failed"}
    return CollectionStatus(
        state=states.get(view.phase, "Running"),
        job=view.name,
        finished_at=view.finished_at,
        dry_run=bool(view.result.get("dryRun", False)),
        bytes=view.result.get("sizeBytes"),
        deleted=view.result.get("deleted"),
        kept=view.result.get("kept"),
        message=shortened(view.failure.message, MAX_MESSAGE) if view.failure is not None else None,
    )


def _job_name(observed: Observed, store: Store) -> str | None:
    """Name of the Job of this interval; None when this pipeline asks for no collection."""
    wanted = observed.spec.storage.gc
    return naming.job(GC, None, _key(wanted, store, observed.now)) if wanted is not None else None


def _views(observed: Observed) -> list[JobView]:
    return [view for view in observed.jobs if view.stage == GC]


def _start(wanted: Collection, keep: frozenset[str], store: Store, observed: Observed, settings: Settings) -> StartJob:
    request = JobRequest(
        stage=GC,
        component=None,
        sku=None,
        key=_key(wanted, store, observed.now),
        arguments=tuple(_arguments(wanted, sorted(keep))),
        resources=SMALL,
        timeout_seconds=TIMEOUT_SECONDS,
        claim=store.claim,
        store_uid=store.uid,
    )
    return StartJob(job(request, observed.owner, settings))


def _arguments(wanted: Collection, keep: list[str]) -> Iterator[str]:
    for first in range(0, len(keep), DIGESTS_PER_ARGUMENT):
        yield from ("--keep", ",".join(keep[first : first + DIGESTS_PER_ARGUMENT]))
    yield from ("--grace", wanted.grace)
    if wanted.dry_run:
        yield "--dry-run"


def _key(wanted: Collection, store: Store, now: datetime) -> str:
    interval = int(now.timestamp()) // seconds(wanted.interval)
    inputs = {"uid": store.uid, "settings": wanted.model_dump(mode="json"), "interval": interval}
    return digests.build_key(GC, store.claim, inputs)


def _claim(pipeline: JsonObject) -> str:
    name: str | None = pipeline["spec"].get("storage", {}).get("claimName")
    return name or naming.claim(pipeline["metadata"]["name"])


def _collects(pipeline: JsonObject) -> bool:
    spec = pipeline["spec"]
    gone = "deletionTimestamp" in pipeline["metadata"] or spec.get("suspend", False)
    return spec.get("storage", {}).get("gc") is not None and not gone
