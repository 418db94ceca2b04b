"""What a Job and its pods say: state, result, and when a failed one may run again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from diffusion_operator import naming
from diffusion_operator.conditions import Reason
from diffusion_operator.manifests.job import BAD_INPUT, GC
from diffusion_operator.plan import pods as pod_views
from diffusion_operator.plan.pods import Trouble

JsonObject = dict[str, Any]
Phase = Literal["Queued", "Pending", "Running", "Succeeded", "Failed", "Lost"]

FIRST_RETRY_SECONDS = 30
LAST_RETRY_SECONDS = 900
OUTSIDE = frozenset({"AccessDenied", "SourceNotFound"})
"""The builder's reasons that somebody can mend without touching the pipeline: a Secret, the files on a claim."""


@dataclass(frozen=True)
class Failure:
    """Why a Job failed; `permanent` means that the same inputs would fail again."""

    reason: str
    message: str
    permanent: bool


@dataclass(frozen=True)
class JobView:
    """One Job as the plan needs it.

    Attributes:
        phase: Queued means that it waits for its turn.
            Lost means that it succeeded but nobody can say with which result: it has to run again.
        record: result as JSON text that is not yet kept on the Job; None when it is kept or there is none.
        creator: pipeline that created it.
        template: digest of how it is run.
        store_uid: UID of the claim that its artifact is in.
        owners: UIDs of the pipelines that need it.
    """

    name: str
    uid: str
    resource_version: str
    phase: Phase
    stage: str
    creator: str
    template: str
    attempt: int
    store_uid: str
    owners: tuple[str, ...]
    terminating: bool
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    result: JsonObject = field(default_factory=dict)
    failure: Failure | None = None
    trouble: Trouble | None = None
    record: str | None = None

    @property
    def unfinished(self) -> bool:
        """True while its pods run, or still have to."""
        return self.phase in {"Queued", "Pending", "Running"}

    def retry_at(self) -> datetime | None:
        """When a failed Job may run again; None for never."""
        lost = self.phase == "Lost"
        if not lost and (self.failure is None or self.failure.permanent):
            return None
        # The store answers at once for what was built, so the first loss costs nothing.
        first = lost and self.attempt == 0
        pause = 0 if first else min(FIRST_RETRY_SECONDS * 2 ** min(self.attempt, 10), LAST_RETRY_SECONDS)
        return parse_time(self.finished_at) + timedelta(seconds=pause)


def elsewhere(found: JobView) -> JobView:
    """The Job as seen by somebody with another store: whatever it said, the artifact is not there."""
    return replace(found, phase="Lost", attempt=0, result={}, failure=None, record=None)


def rfc3339(time: datetime) -> str:
    """The time as Kubernetes writes it, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime:
    """A Kubernetes time; the epoch when there is none."""
    return datetime.fromisoformat(text) if text else datetime.fromtimestamp(0, UTC)


def view(job: JsonObject, pods: Sequence[JsonObject]) -> JobView:
    """What the Job and its pods say.

    Args:
        job: as the API server gives it.
        pods: of this Job; may be empty once the result is kept on the Job.
    """
    head = job["metadata"]
    labels, annotations = head.get("labels", {}), head.get("annotations", {})
    outcome = _outcome(job, pod_views.newest_first(pods))
    return JobView(
        name=head["name"],
        uid=head["uid"],
        resource_version=head["resourceVersion"],
        stage=labels.get(naming.STAGE, ""),
        creator=labels.get(naming.PIPELINE, ""),
        template=annotations.get(naming.TEMPLATE, ""),
        attempt=_number(annotations.get(naming.ATTEMPT)),
        store_uid=annotations.get(naming.STORE_UID, ""),
        owners=tuple(owner["uid"] for owner in head.get("ownerReferences", [])),
        terminating="deletionTimestamp" in head,
        created_at=head.get("creationTimestamp"),
        started_at=job.get("status", {}).get("startTime"),
        finished_at=_finished(job),
        phase=outcome.phase,
        result=outcome.result,
        failure=outcome.failure,
        trouble=outcome.trouble,
        record=None if naming.RESULT in annotations else outcome.record,
    )


@dataclass(frozen=True)
class _Outcome:
    phase: Phase
    result: JsonObject = field(default_factory=dict)
    failure: Failure | None = None
    trouble: Trouble | None = None
    record: str | None = None


def is_finished(job: JsonObject) -> bool:
    """True when the Job will not run another pod."""
    return _condition(job) is not None


def _outcome(job: JsonObject, pods: list[JsonObject]) -> _Outcome:
    condition = _condition(job)
    if condition is None:
        return _unfinished(job, pods)
    kept = job["metadata"].get("annotations", {}).get(naming.RESULT)
    record = kept if kept is not None else _record(pods, want_success=condition["type"] == "Complete")
    parsed = parse_result(record)
    if condition["type"] == "Complete":
        if parsed.get("digest") or parsed.get("stage") == GC:
            return _Outcome("Succeeded", result=parsed, record=record)
        return _Outcome("Lost")
    return _Outcome("Failed", failure=_failure(parsed, condition, job), record=record)


def _unfinished(job: JsonObject, pods: list[JsonObject]) -> _Outcome:
    if any(pod_views.is_running(pod) or _is_ending(pod) for pod in pods):
        return _Outcome("Running")
    if job.get("spec", {}).get("suspend"):
        return _Outcome("Queued")
    if not pods:
        return _Outcome("Pending", trouble=_no_pod(job))
    return _Outcome("Pending", trouble=pod_views.trouble(pods[0]))


def _no_pod(job: JsonObject) -> Trouble:
    """Normal for a moment; when it lasts, only the Job's own Events say why."""
    name = job["metadata"]["name"]
    text = f"Job {name} gets no pod (a quota or an admission policy?): kubectl describe job {name} says why."
    return Trouble(Reason.OBJECT_REFUSED, text, str(job["metadata"].get("creationTimestamp", "")))


def _is_ending(pod: JsonObject) -> bool:
    """True when the builder succeeded and the Job controller has not seen it yet."""
    ended = pod_views.termination(pod)
    return ended is not None and ended.exit_code == 0


def _record(pods: list[JsonObject], *, want_success: bool) -> str | None:
    """The newest pod's last words as JSON text, with the exit code."""
    for pod in pods:
        ended = pod_views.termination(pod)
        if ended is None or (ended.exit_code == 0) != want_success:
            continue
        said = parse_result(ended.message)
        if not want_success:
            said = {
                "error": said.get("error") or _unsaid(ended),
                "exitCode": ended.exit_code,
                "ended": ended.reason,
            }
        return json.dumps(said, separators=(",", ":"))
    return None


def _unsaid(ended: pod_views.Termination) -> JsonObject:
    """For a builder that was killed before it could say why."""
    if ended.reason == "OOMKilled":
        message = "The Job ran out of memory: raise spec.engines.resources.limits.memory."
        return {"reason": Reason.OUT_OF_MEMORY, "message": message}
    if ended.reason == "DeadlineExceeded":
        message = "The Job took longer than allowed: raise spec.engines.timeout."
        return {"reason": Reason.TIMED_OUT, "message": message}
    said = ended.message.strip() or ended.reason or "nothing more is known; read the Job's log"
    return {
        "reason": Reason.BUILD_FAILED,
        "message": f"The builder ended with exit code {ended.exit_code}: {said}",
    }


def _failure(parsed: JsonObject, condition: JsonObject, job: JsonObject) -> Failure:
    error = parsed.get("error")
    if not isinstance(error, dict):
        text = f"The Job failed and its pod is gone: {condition.get('message', 'no reason given')}"
        return Failure(Reason.EVIDENCE_LOST, text, permanent=False)
    reason = str(error.get("reason") or Reason.BUILD_FAILED)
    ended = parsed.get("ended")
    fetching = job["metadata"].get("labels", {}).get(naming.STAGE) == "fetch"
    # A download goes on where it stopped; a compilation that was too slow or too big stays so.
    hopeless = ended == "OOMKilled" or (ended == "DeadlineExceeded" and not fetching)
    permanent = parsed.get("exitCode") == BAD_INPUT or hopeless
    message = str(error.get("message") or "The builder gave no message.")
    return Failure(reason, message, permanent=permanent and not _is_outside(reason, job))


def _is_outside(reason: str, job: JsonObject) -> bool:
    """True when the same pipeline may work later. A hub hides a repository from a token that may not read it."""
    volumes = job.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", [])
    hidden = reason == "RepositoryNotFound" and any(volume["name"] == "token" for volume in volumes)
    return reason in OUTSIDE or hidden


def _condition(job: JsonObject) -> JsonObject | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
            return dict(condition)
    return None


def _finished(job: JsonObject) -> str | None:
    condition = _condition(job)
    return str(condition.get("lastTransitionTime", "")) or None if condition else None


def parse_result(text: str | None) -> JsonObject:
    """A result that is kept on a Job; empty when it cannot be read."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
