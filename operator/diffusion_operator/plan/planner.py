"""ObservedPipeline objects + spec -> actions, status and Events; pure: the same input gives the same plan.

One pass is observe -> plan -> act. Some plans need more than every pass observes: other users of the store when its
garbage is due for collection, metrics when a canary or an experiment has traffic. Such a plan names it in `needs`; it
is then observed, and the pass is planned again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from diffusion_contract.durations import duration_seconds
from diffusion_contract.enums import Stage
from diffusion_operator.analysis.window import ScrapeTarget
from diffusion_operator.api.status import DiffusionPipelineStatus
from diffusion_operator.conditions import ConditionType, ConditionUpdate, Reason
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import store_claim
from diffusion_operator.manifests.event import PendingEvent
from diffusion_operator.plan import (
    build_conditions,
    canary_analysis,
    garbage_collection,
    images_api,
    report,
    serving,
    serving_conditions,
)
from diffusion_operator.plan.actions import Action, Apply, EndJob
from diffusion_operator.plan.build_graph import BuildGraph
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.build_steps import JobLauncher, admissions, recently_created, release_job
from diffusion_operator.plan.context import PlanContext
from diffusion_operator.plan.dropped_fields import dropped_fields_events
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.plan.serving import TargetPlans
from diffusion_operator.views.base import rfc3339

FINAL = frozenset({Reason.CANARY_REJECTED, Reason.REVISION_NOT_IN_HISTORY})
"""Reasons that nothing but another spec changes."""

POLL_SECONDS = 10.0
MIN_REQUEUE_SECONDS = 1.0


@dataclass(frozen=True)
class ObservationRequest:
    """What a plan needs observed beyond what every pass observes.

    Attributes:
        store: whose users are listed, since a garbage collection of it is due; None when none is.
        metrics: pods whose metrics are read.
    """

    store: StoreClaim | None = None
    metrics: tuple[ScrapeTarget, ...] = ()

    def __bool__(self) -> bool:
        return self.store is not None or bool(self.metrics)


@dataclass(frozen=True)
class Plan:
    """What to do now.

    Attributes:
        actions: in the order in which they are executed.
        status: to write when it differs from the present one.
        requeue_seconds: until the next pass; None when only an event or the resync can change anything.
        needs: to observe before the plan is executed.
    """

    actions: tuple[Action, ...]
    status: DiffusionPipelineStatus
    events: tuple[PendingEvent, ...]
    requeue_seconds: float | None
    needs: ObservationRequest = ObservationRequest()

    @property
    def ready(self) -> tuple[str, str]:
        """Status and reason of the condition Ready."""
        pairs = ((item.status, item.reason) for item in self.status.conditions if item.type == ConditionType.READY)
        return next(pairs, ("Unknown", ""))


@dataclass(frozen=True)
class Planning:
    """Everything that the plan of a pass is made from; kept for the case that the API server refuses an action."""

    context: PlanContext
    targets: TargetPlans

    def plan(self, refusal: ConditionUpdate | None = None) -> Plan:
        """The plan.

        Args:
            refusal: set when the API server refused an action of this plan: then `Accepted` is false.
        """
        observed, builds, targets = self.context.observed, self.context.builds, self.targets
        accepted = build_conditions.accepted(observed, self.context.settings)
        updates = report.with_ready(
            (
                refusal or accepted,
                build_conditions.engines_ready(self.context),
                build_conditions.repository_ready(observed, builds),
                serving_conditions.available(observed, targets.plans),
                serving_conditions.rollout_complete(observed, targets.plans),
                *images_api.condition(observed),
            )
        )
        basis = report.status_basis(observed.generation, rfc3339(observed.now), observed.status)
        status = report.pipeline_status(basis, updates, self.context, targets)
        steps = (*report.canary_events(targets), *report.room_events(targets)) if accepted.ok else ()
        return Plan(
            # What serves continues to serve; nothing new begins that could not be finished.
            actions=tuple(_actions(self.context, targets)) if accepted.ok else (),
            status=status,
            events=(
                *report.condition_events(basis, updates),
                *dropped_fields_events(observed.annotations, observed.status),
                *steps,
                *report.gpu_warnings(status, observed.status),
            ),
            requeue_seconds=_soonest(
                _build_requeue(observed, builds, updates),
                _detained_requeue(observed),
                _canary_requeue(observed, targets),
            ),
            needs=self._needs(),
        )

    def _needs(self) -> ObservationRequest:
        observed, store, builds = self.context.observed, self.context.store, self.context.builds
        is_due = (
            store is not None
            and builds is not None
            and builds.is_complete
            and garbage_collection.is_due(observed, store)
        )
        scrape_targets = (
            canary_analysis.scrape_targets(observed, self.targets.contexts) if observed.windows is None else ()
        )
        return ObservationRequest(
            store=store if is_due and observed.live_digests is None else None, metrics=tuple(scrape_targets)
        )


def planning(context: PlanContext) -> Planning:
    """Derive everything that the plan of one pipeline is made from."""
    return Planning(context, serving.plan_targets(context))


def rejection(generation: int, now: datetime, status: JsonObject, message: str) -> Plan:
    """A plan for a spec that this version cannot read: report it, touch nothing."""
    basis = report.status_basis(generation, rfc3339(now), status)
    invalid = ConditionUpdate(ConditionType.ACCEPTED, Reason.INVALID_SPEC, message)
    updates = report.with_ready([invalid])
    return Plan((), report.conditions_only(basis, updates), tuple(report.condition_events(basis, updates)), None)


def _actions(context: PlanContext, targets: TargetPlans) -> Iterator[Action]:
    observed = context.observed
    yield from _detained_jobs(observed)
    if observed.spec.storage.claim_name is None:
        yield Apply(store_claim(observed.spec.storage, observed.owner))
    if context.builds is not None:
        yield from _build_actions(context, context.builds)
    yield from serving.actions(context, targets)
    if context.store is not None:
        yield from garbage_collection.actions(observed, context.store, context.settings)
    yield from images_api.actions(context, is_served=bool(targets.splits))


def _build_actions(context: PlanContext, builds: BuildGraph) -> Iterator[Action]:
    observed, steps = context.observed, builds.steps()
    launcher = JobLauncher(observed, context.settings)
    actions = [action for step in steps if (action := launcher.action(step)) is not None]
    yield from actions
    if not observed.spec.suspend:
        yield from dict.fromkeys(admissions(steps, actions))
    yield from _obsolete_jobs(observed, builds, frozenset(step.request.name for step in steps))


def _detained_jobs(observed: ObservedPipeline) -> Iterator[Action]:
    """End the Jobs that only containers of others keep; their results are recorded first."""
    for job in observed.jobs:
        due = job.due_to_end_at()
        if due is not None and due <= observed.now and job.unrecorded is None:
            yield EndJob(job.name, job.resource_version)


def _obsolete_jobs(observed: ObservedPipeline, builds: BuildGraph, needed: frozenset[str]) -> Iterator[Action]:
    """Jobs of an older spec, as soon as it is certain that this one does not need them; at once while suspended."""
    complete = builds.resolved_stages()
    for job in observed.jobs:
        stopped = observed.spec.suspend and job.unfinished and job.stage != Stage.GC
        if job.name not in needed and not job.terminating and (job.stage in complete or stopped):
            yield release_job(job, observed.owner)


def _soonest(*delays: float | None) -> float | None:
    return min((delay for delay in delays if delay is not None), default=None)


def _canary_requeue(observed: ObservedPipeline, targets: TargetPlans) -> float | None:
    rollout = observed.spec.rollout
    return targets.requeue_seconds(duration_seconds(rollout.analysis.interval)) if rollout is not None else None


def _detained_requeue(observed: ObservedPipeline) -> float | None:
    """No event says that the time for a Job's other containers is over."""
    due = [moment for job in observed.jobs if (moment := job.due_to_end_at()) is not None]
    return max(MIN_REQUEUE_SECONDS, (min(due) - observed.now).total_seconds()) if due else None


def _build_requeue(
    observed: ObservedPipeline, builds: BuildGraph | None, updates: Sequence[ConditionUpdate]
) -> float | None:
    """Events wake a pipeline; the clock alone changes retries and how long a problem has lasted."""
    if all(update.ok or update.reason in FINAL for update in updates) or observed.spec.suspend:
        return None
    jobs = [step.job for step in builds.steps() if step.job is not None] if builds is not None else []
    retries = [retry for job in jobs if job.phase in {"Failed", "Lost"} and (retry := job.retry_at()) is not None]
    delays = [max(MIN_REQUEUE_SECONDS, (retry - observed.now).total_seconds()) for retry in retries]
    not_retryable = any(job.phase == "Failed" and job.retry_at() is None for job in jobs)
    busy = any(job.unfinished or recently_created(job, observed.now) for job in jobs)
    if not delays and not_retryable and not busy:
        return None
    return min([*delays, POLL_SECONDS])
