"""One build step: its request, its Job, and the next action."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from diffusion_operator import naming
from diffusion_operator.api.status import BuildStatus, State
from diffusion_operator.conditions import truncated
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.job import BuildJobSpec, job_manifest, template_digest
from diffusion_operator.plan.actions import Action, AdmitJobs, DeleteJob, RecordResult, ReleaseJob, RestartJob, StartJob
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.settings import Settings
from diffusion_operator.views.base import parse_time
from diffusion_operator.views.job import JobView, as_lost

REPLACE_GRACE = timedelta(seconds=10)
STATES: Mapping[str, State] = {"Queued": "Queued", "Succeeded": "Ready", "Running": "Running", "Failed": "Failed"}


@dataclass(frozen=True)
class BuildStep:
    """One stage for one component (and SKU), with what is known of its Job."""

    request: BuildJobSpec
    job: JobView | None

    @property
    def succeeded(self) -> bool:
        """True when the artifact is in the store."""
        return self.job is not None and self.job.phase == "Succeeded"

    @property
    def failed(self) -> bool:
        """True when its Job failed, whether or not it will be tried again."""
        return self.job is not None and self.job.phase == "Failed"

    @property
    def running(self) -> bool:
        """True while the builder works."""
        return self.job is not None and self.job.phase == "Running"

    @property
    def result(self) -> JsonObject:
        """What the builder reported; empty until it succeeded."""
        return self.job.result if self.job is not None else {}

    @property
    def digest(self) -> str:
        """Name of the artifact in the store; empty until it succeeded."""
        return str(self.result.get("digest", ""))

    @property
    def title(self) -> str:
        """Stage and component, for messages."""
        return " ".join(filter(None, (self.request.stage, self.request.component)))

    @property
    def subject(self) -> str:
        """The same with the SKU, where there is one."""
        return f"{self.title} for {self.request.sku}" if self.request.sku is not None else self.title

    def failure_text(self) -> str:
        """Why it failed, where to read more and what happens next."""
        if self.job is None or self.job.failure is None:
            return ""
        retry = self.job.retry_at()
        outlook = "No retry until the spec changes." if retry is None else f"Next retry at {retry:%H:%M:%S} UTC."
        cause = self.job.failure.message.rstrip().rstrip(".")
        if self.job.failure.reason == "StoreFull":
            cause += f". Enlarge claim {self.request.claim} (spec.storage.size, where its class allows it)"
        return f"{self.subject}: {cause}. {outlook} Log: kubectl logs job/{self.request.name}"


def recently_created(job: JobView, now: datetime) -> bool:
    """True while the Job is too young to be replaced."""
    return now - parse_time(job.created_at) < REPLACE_GRACE


def build_step(request: BuildJobSpec, jobs: Mapping[str, JobView]) -> BuildStep:
    """The step, with its Job when there is one."""
    present = jobs.get(request.name)
    if present is not None and present.store_uid != request.store_uid:
        present = as_lost(present)
    return BuildStep(request, present)


@dataclass(frozen=True)
class JobLauncher:
    """Decides about starting Jobs for one pipeline."""

    observed: ObservedPipeline
    settings: Settings

    def action(self, step: BuildStep) -> Action | None:
        """The next action for the step, or None."""
        present, request = step.job, step.request
        if present is not None and present.unrecorded is not None:
            labels = (request.stage, request.component or "", request.sku or "")
            return RecordResult(present.name, present.unrecorded, labels)
        if present is not None and present.terminating:
            return None
        if self.observed.spec.suspend:
            return release_job(present, self.observed.owner) if present is not None and present.unfinished else None
        if present is None:
            return StartJob(job_manifest(request, self.observed.owner, self.settings))
        if not self._restarts(step, present):
            return None
        attempt = 0 if self._has_changed(step, present) else present.attempt + 1
        body = job_manifest(request, self.observed.owner, self.settings, attempt)
        return RestartJob(present.name, present.uid, present.resource_version, body)

    def _restarts(self, step: BuildStep, present: JobView) -> bool:
        if present.phase in {"Succeeded", "Running"}:
            return False
        if self._has_changed(step, present):
            return True
        retry = present.retry_at()
        return retry is not None and retry <= self.observed.now

    def _has_changed(self, step: BuildStep, present: JobView) -> bool:
        """True when this pipeline started the Job, some time ago, in another way than it would now.

        Only its creator replaces a Job for this: two pipelines with different resources would take turns
        for ever. And not at once: two operators with different settings would.
        """
        if present.creator != self.observed.owner.name or recently_created(present, self.observed.now):
            return False
        return present.template != template_digest(step.request, self.settings)


def release_job(present: JobView, owner: Owner) -> Action:
    """End this pipeline's claim on a Job; the Job goes with its last claim."""
    if present.owner_uids <= {owner.uid}:
        return DeleteJob(present.name, present.uid, present.resource_version)
    return ReleaseJob(present.name, naming.needed_by_label(owner.name), owner.uid)


def admissions(steps: Iterable[BuildStep], actions: Iterable[Action]) -> Iterator[AdmitJobs]:
    """Queues that need attention: a Job waits there, comes, or has just made room."""
    started = {action.body["metadata"]["name"] for action in actions if isinstance(action, StartJob | RestartJob)}
    for step in steps:
        present, queue = step.job, step.request.queue
        moved = step.request.name in started or (present is not None and present.unrecorded is not None)
        if queue is not None and (moved or (present is not None and present.phase == "Queued")):
            yield AdmitJobs(queue)


def admissible_jobs(jobs: Sequence[JobView], limit: int) -> list[JobView]:
    """Jobs that may start now.

    The next place goes to the pipeline with the fewest running Jobs, among equals to the Job that waits longest:
    a pipeline with many components does not keep a small one waiting, and no Job waits for ever.

    Args:
        jobs: all compile Jobs of one SKU, of all pipelines and namespaces.
        limit: most that run at once.
    """
    unfinished = [job for job in jobs if not job.is_finished]
    running = Counter(_pipeline(job) for job in unfinished if not job.suspended)
    waiting = [job for job in unfinished if job.suspended and not job.terminating]
    admissions: list[JobView] = []
    while waiting and running.total() < limit:
        job = min(waiting, key=lambda job: (running[_pipeline(job)], job.created_at, job.namespace, job.name))
        waiting.remove(job)
        running[_pipeline(job)] += 1
        admissions.append(job)
    return admissions


def step_status(step: BuildStep | None) -> BuildStatus:
    """The step as the status shows it."""
    if step is None:
        return BuildStatus(state="Waiting")
    if step.job is None:
        return BuildStatus(state="Pending", job=step.request.name)
    return BuildStatus(
        state=STATES.get(step.job.phase, "Pending"),
        job=step.job.name,
        digest=step.digest or None,
        size_bytes=step.result.get("sizeBytes"),
        seconds=step.result.get("seconds"),
        cached=step.result.get("cached"),
        started_at=step.job.started_at,
        message=_message(step, step.job),
    )


def queue_message(step: BuildStep) -> str:
    """What a Job that is not admitted waits for."""
    if step.request.queue is None:
        return f"{step.title} waits until Kueue admits it: kubectl get workloads says more."
    return f"{step.title} is queued: the limit of concurrent compile Jobs for {step.request.queue} is reached."


def _message(step: BuildStep, present: JobView) -> str | None:
    if present.phase == "Queued":
        return queue_message(step)
    if present.failure is not None:
        return truncated(present.failure.message)
    return truncated(present.problem.message) if present.problem is not None else None


def _pipeline(job: JobView) -> tuple[str, str]:
    return job.namespace, job.creator
