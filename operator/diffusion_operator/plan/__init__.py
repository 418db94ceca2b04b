"""Observed + spec -> what to do, status and Events; pure: same input, same plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diffusion_contract.base import seconds
from diffusion_operator.api.status import DiffusionPipelineStatus
from diffusion_operator.conditions import Finding, Reason, Type
from diffusion_operator.manifests import pvc
from diffusion_operator.manifests.event import EventNote
from diffusion_operator.manifests.job import GC
from diffusion_operator.plan import accepted, collection, findings, report, serving
from diffusion_operator.plan.actions import Action, Apply
from diffusion_operator.plan.builds import Builds, chain
from diffusion_operator.plan.jobs import rfc3339
from diffusion_operator.plan.observed import Observed, claim_name
from diffusion_operator.plan.requests import Store
from diffusion_operator.plan.steps import Starter, drop, is_young, queues
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]

SETTLED = frozenset({Reason.CANARY_REJECTED, Reason.REVISION_NOT_KEPT})
"""Nothing but another spec changes these."""

POLL_SECONDS = 10.0
SOON_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """What to do now.

    Attributes:
        actions: in the order in which they are carried out.
        status: to write when it differs from what is there.
        notes: Events to send.
        again_seconds: look again after this time; None when only an event or the resync can change anything.
    """

    actions: tuple[Action, ...]
    status: DiffusionPipelineStatus
    notes: tuple[EventNote, ...]
    again_seconds: float | None

    @property
    def ready(self) -> tuple[str, str]:
        """Status and reason of the condition Ready."""
        pairs = ((item.status, item.reason) for item in self.status.conditions if item.type == Type.READY)
        return next(pairs, ("Unknown", ""))


def plan(observed: Observed, settings: Settings, refused: Finding | None = None) -> Plan:
    """Plan one pipeline.

    Args:
        observed: what was seen.
        settings: of the operator.
        refused: set when the API server refused an earlier plan's action: then `Accepted` is false.
    """
    builds = _builds(observed, settings)
    targets = serving.plan_targets(observed, builds, store_of(observed), settings)
    fit = accepted.check(observed.spec, settings)
    found = report.with_ready(
        (
            refused or fit,
            findings.engines(observed, builds),
            findings.repository(observed, builds),
            findings.available(observed, targets.plans),
            findings.rollout(observed, targets.plans),
        )
    )
    at = report.moment(observed.generation, rfc3339(observed.now), observed.status)
    status = report.full(at, found, observed, builds, targets.plans)
    steps = report.step_notes(targets) if fit.ok else ()
    return Plan(
        # What serves goes on serving; nothing new is begun that could not be finished.
        actions=tuple(_actions(observed, builds, targets, settings)) if fit.ok else (),
        status=status,
        notes=(*report.notes(at, found), *steps, *report.warnings(status, observed.status)),
        again_seconds=_soonest(_again(observed, builds, found), _canary_again(observed, targets)),
    )


def rejected(generation: int, now: datetime, status: JsonObject, message: str) -> Plan:
    """A plan for a spec that this version cannot read: say so, touch nothing."""
    at = report.moment(generation, rfc3339(now), status)
    found = report.with_ready([Finding(Type.ACCEPTED, ok=False, reason=Reason.INVALID_SPEC, message=message)])
    return Plan((), report.only_conditions(at, found), tuple(report.notes(at, found)), None)


def store_of(observed: Observed) -> Store | None:
    """The store, when it can be used."""
    if findings.storage(observed) is not None or observed.claims.store is None:
        return None
    return Store(claim_name(observed.spec, observed.owner.name), observed.claims.store["metadata"]["uid"])


def store_to_collect(observed: Observed, settings: Settings) -> Store | None:
    """The store, when a garbage collection of it is due: then it has to be known who else needs it."""
    store = store_of(observed)
    if store is None or not collection.is_wanted(observed, store):
        return None
    builds = _builds(observed, settings)
    return store if builds is not None and builds.complete else None


def _builds(observed: Observed, settings: Settings) -> Builds | None:
    store = store_of(observed)
    jobs = {item.name: item for item in observed.jobs}
    return chain(observed.spec, store, settings, jobs) if store is not None else None


def _actions(
    observed: Observed, builds: Builds | None, targets: serving.Targets, settings: Settings
) -> Iterator[Action]:
    if observed.spec.storage.claim_name is None:
        yield Apply(pvc.claim(observed.spec.storage, observed.owner))
    if builds is not None:
        starter = Starter(observed.owner, settings, observed.now, observed.spec.suspend)
        wanted = {item.request.name: item for item in builds.steps()}
        moves = [move for item in wanted.values() if (move := starter.action(item)) is not None]
        yield from moves
        if not observed.spec.suspend:
            yield from dict.fromkeys(queues(wanted.values(), moves))
        yield from _obsolete_jobs(observed, builds, frozenset(wanted))
    yield from serving.actions(observed, targets, settings)
    store = store_of(observed)
    if store is not None:
        yield from collection.actions(observed, store, settings)


def _obsolete_jobs(observed: Observed, builds: Builds, wanted: frozenset[str]) -> Iterator[Action]:
    """Jobs of an older spec, as soon as it is certain that this one does not need them; at once while suspended."""
    settled = builds.settled_stages()
    for view in observed.jobs:
        stopped = observed.spec.suspend and view.unfinished and view.stage != GC
        if view.name in wanted or view.terminating or not (view.stage in settled or stopped):
            continue
        yield drop(view, observed.owner)


def _soonest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)


def _canary_again(observed: Observed, targets: serving.Targets) -> float | None:
    rollout = observed.spec.rollout
    return targets.again_seconds(seconds(rollout.analysis.interval)) if rollout is not None else None


def _again(observed: Observed, builds: Builds | None, found: Sequence[Finding]) -> float | None:
    """Events wake a pipeline; the clock alone changes retries and how long trouble has lasted."""
    if all(finding.ok or finding.reason in SETTLED for finding in found) or observed.spec.suspend:
        return None
    views = [item.view for item in builds.steps() if item.view is not None] if builds is not None else []
    retries = [retry for view in views if view.phase in {"Failed", "Lost"} and (retry := view.retry_at()) is not None]
    waits = [max(SOON_SECONDS, (retry - observed.now).total_seconds()) for retry in retries]
    hopeless = any(view.phase == "Failed" and view.retry_at() is None for view in views)
    busy = any(view.unfinished or is_young(view, observed.now) for view in views)
    if not waits and hopeless and not busy:
        return None
    return min([*waits, POLL_SECONDS])
