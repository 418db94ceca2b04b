"""One build step: what is wanted, what its Job says, what to do next."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from diffusion_operator import naming
from diffusion_operator.api.status import BuildStatus, State
from diffusion_operator.conditions import shortened
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.job import JobRequest, job, template_digest
from diffusion_operator.plan.actions import Action, Admit, DeleteJob, KeepResult, LeaveJob, RestartJob, StartJob
from diffusion_operator.plan.jobs import JobView, elsewhere, parse_time
from diffusion_operator.settings import Settings

JsonObject = dict[str, Any]
MAX_MESSAGE = 1000
SETTLING = timedelta(seconds=10)


@dataclass(frozen=True)
class Step:
    """One stage for one component (and SKU), with what is known of its Job."""

    request: JobRequest
    view: JobView | None

    @property
    def done(self) -> bool:
        """True when the artifact is in the store."""
        return self.view is not None and self.view.phase == "Succeeded"

    @property
    def failed(self) -> bool:
        """True when its Job failed, whether or not it will be tried again."""
        return self.view is not None and self.view.phase == "Failed"

    @property
    def running(self) -> bool:
        """True while the builder works."""
        return self.view is not None and self.view.phase == "Running"

    @property
    def result(self) -> JsonObject:
        """What the builder said; empty until done."""
        return self.view.result if self.view is not None else {}

    @property
    def digest(self) -> str:
        """Name of the artifact in the store; empty until done."""
        return str(self.result.get("digest", ""))

    @property
    def title(self) -> str:
        """What this step does, for messages."""
        return " ".join(filter(None, (self.request.stage, self.request.component)))

    @property
    def subject(self) -> str:
        """The same with what it is done for, where that is one of several."""
        return f"{self.title} for {self.request.sku}" if self.request.sku is not None else self.title

    def failure_text(self) -> str:
        """Why it failed, where to read more and what happens next."""
        if self.view is None or self.view.failure is None:
            return ""
        retry = self.view.retry_at()
        if retry is None:
            following = "It is not tried again until the spec changes."
        else:
            following = f"It is tried again at {retry:%H:%M:%S} UTC."
        said = self.view.failure.message.rstrip().rstrip(".")
        if self.view.failure.reason == "StoreFull":
            said += f". Enlarge claim {self.request.claim} (spec.storage.size, where its class allows it)"
        return f"{self.subject}: {said}. {following} Log: kubectl logs job/{self.request.name}"


def is_young(view: JobView, now: datetime) -> bool:
    """True while the Job is too young to be replaced."""
    return now - parse_time(view.created_at) < SETTLING


def step(request: JobRequest, jobs: Mapping[str, JobView]) -> Step:
    """The step, with its Job when there is one."""
    found = jobs.get(request.name)
    if found is not None and found.store_uid != request.store_uid:
        found = elsewhere(found)
    return Step(request, found)


@dataclass(frozen=True)
class Starter:
    """Decides about starting Jobs for one pipeline."""

    owner: Owner
    settings: Settings
    now: datetime
    suspended: bool

    def action(self, item: Step) -> Action | None:
        """What to do about the step now, or None."""
        view = item.view
        if view is not None and view.record is not None:
            request = item.request
            return KeepResult(view.name, view.record, (request.stage, request.component or "", request.sku or ""))
        if view is not None and view.terminating:
            return None
        if self.suspended:
            return drop(view, self.owner) if view is not None and view.unfinished else None
        if view is None:
            return StartJob(job(item.request, self.owner, self.settings))
        if not self._again(item, view):
            return None
        attempt = 0 if self._changed(item, view) else view.attempt + 1
        body = job(item.request, self.owner, self.settings, attempt)
        return RestartJob(view.name, view.uid, view.resource_version, body)

    def _again(self, item: Step, view: JobView) -> bool:
        if view.phase in {"Succeeded", "Running"}:
            return False
        if self._changed(item, view):
            return True
        retry = view.retry_at()
        return retry is not None and retry <= self.now

    def _changed(self, item: Step, view: JobView) -> bool:
        """True when this pipeline started the Job, some time ago, in another way than it would now.

        Only its creator replaces a Job for this: two pipelines with different resources would take turns
        for ever. And not at once: two operators with different settings would.
        """
        mine = view.creator == self.owner.name
        return mine and not is_young(view, self.now) and view.template != template_digest(item.request, self.settings)


def drop(view: JobView, owner: Owner) -> Action:
    """What a pipeline does about a Job that it does not need any more."""
    if set(view.owners) <= {owner.uid}:
        return DeleteJob(view.name, view.uid, view.resource_version)
    return LeaveJob(view.name, naming.membership(owner.name), owner.uid)


def queues(items: Iterable[Step], actions: Iterable[Action]) -> Iterator[Admit]:
    """Queues that have to be looked at: somebody waits there, comes, or has just made room."""
    started = {item.body["metadata"]["name"] for item in actions if isinstance(item, StartJob | RestartJob)}
    for item in items:
        view, queue = item.view, item.request.queue
        moved = item.request.name in started or (view is not None and view.record is not None)
        if queue is not None and (moved or (view is not None and view.phase == "Queued")):
            yield Admit(queue)


def status(item: Step | None) -> BuildStatus:
    """The step as the status shows it."""
    if item is None:
        return BuildStatus(state="Waiting")
    if item.view is None:
        return BuildStatus(state="Pending", job=item.request.name)
    return BuildStatus(
        state=_state(item.view),
        job=item.view.name,
        digest=item.digest or None,
        size_bytes=item.result.get("sizeBytes"),
        seconds=item.result.get("seconds"),
        cached=item.result.get("cached"),
        started_at=item.view.started_at,
        message=_message(item),
    )


def waiting(item: Step) -> str:
    """What a Job that has not been let go waits for."""
    if item.request.queue is None:
        return f"{item.title} waits until Kueue admits it: kubectl get workloads says more."
    return f"{item.title} waits for its turn: only so many Jobs compile at once on {item.request.queue}."


def _state(view: JobView) -> State:
    states: dict[str, State] = {"Queued": "Queued", "Succeeded": "Ready", "Running": "Running", "Failed": "Failed"}
    return states.get(view.phase, "Pending")


def _message(item: Step) -> str | None:
    view = item.view
    if view is None:
        return None
    if view.phase == "Queued":
        return waiting(item)
    if view.failure is not None:
        return shortened(view.failure.message, MAX_MESSAGE)
    return shortened(view.trouble.message, MAX_MESSAGE) if view.trouble is not None else None
