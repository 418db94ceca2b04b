"""Build Jobs and their pods: state, result, and when a failed one may run again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from diffusion_contract.enums import ExitCode, Stage
from diffusion_contract.reasons import Reason as BuildReason
from diffusion_operator import naming
from diffusion_operator.conditions import Reason
from diffusion_operator.json_objects import (
    JsonObject,
    as_count,
    as_object,
    as_objects,
    as_text,
    parse_json_object,
)
from diffusion_operator.views.base import ConditionView, ObjectView, base_fields, newest_first, parse_time
from diffusion_operator.views.pod import REASON, PodView, Termination
from diffusion_operator.views.pod_problem import PodProblem, pod_problem
from diffusion_operator.views.result import checked_result

Phase = Literal["Queued", "Pending", "Running", "Succeeded", "Failed", "Lost"]

MIN_RETRY_SECONDS = 30
MAX_RETRY_SECONDS = 900
ENDINGS = frozenset({"Complete", "Failed"})
"""Types of the conditions that end a Job."""
COMPANION_GRACE = timedelta(seconds=30)
"""Containers of others may end by themselves once the builder has; the Job then completes like any other."""
ENGINE_STAGES = frozenset({Stage.EXPORT, Stage.COMPILE, Stage.PARITY})
"""Jobs whose resources are those of `spec.engines`."""
EXTERNALLY_FIXABLE = frozenset({BuildReason.ACCESS_DENIED, BuildReason.SOURCE_NOT_FOUND})
"""The builder's reasons that can be fixed without a change of the pipeline: a Secret, the files on a claim."""


@dataclass(frozen=True)
class Failure:
    """Why a Job failed; `permanent` means that the same inputs would fail again."""

    reason: str
    message: str
    permanent: bool


@dataclass(frozen=True)
class _Outcome:
    """How far a Job is; `record` is its result as JSON text, None before there is one or when it is unknown."""

    phase: Phase
    result: JsonObject = field(default_factory=dict)
    failure: Failure | None = None
    problem: PodProblem | None = None
    record: str | None = None


@dataclass(frozen=True)
class JobView(ObjectView):
    """One Job as the plan needs it.

    Attributes:
        template: digest of how it is run.
        attempt: how often it was started again.
        store_uid: UID of the claim that its artifact is in.
        finished_at: of the Job, or of the builder in a pod that goes on without it, RFC 3339; None before that.
        phase: Queued means that it waits for admission.
            Lost means that it succeeded but its result is unknown: it has to run again.
        result: that the builder reported; empty until the Job succeeded.
        failure: None unless the Job failed.
        problem: what keeps its pod from running.
        detained: the builder has ended, and what runs beside it keeps the Job from ending.
        unrecorded: result as JSON text that is not yet recorded on the Job; None when it is or there is none.
    """

    stage: str
    creator: str
    template: str
    attempt: int
    store_uid: str
    suspended: bool
    started_at: str | None
    finished_at: str | None
    phase: Phase
    result: JsonObject
    failure: Failure | None
    problem: PodProblem | None
    detained: bool
    unrecorded: str | None

    @classmethod
    def parse(cls, manifest: JsonObject, pods: Iterable[PodView] = (), pod_failure: str = "") -> Self:
        """The Job as the API server returned it.

        Args:
            manifest: of the Job.
            pods: of this Job; may be empty once the result is recorded on the Job.
            pod_failure: why its last pod could not be created; empty when that is unknown.
        """
        fields = base_fields("Job", manifest)
        labels, annotations = fields["labels"], fields["annotations"]
        newest, ending = newest_first(pods), _ending(fields["conditions"])
        no_pod = _no_pod(fields["name"], fields["created_at"], pod_failure)
        detained_pod = next(filter(_is_detained, newest), None) if ending is None else None
        outcome = _outcome(manifest, fields, ending, [detained_pod] if detained_pod is not None else newest)
        if outcome.phase == "Pending" and not newest:
            outcome = replace(outcome, problem=no_pod)
        return cls(
            **fields,
            stage=labels.get(naming.STAGE, ""),
            creator=labels.get(naming.PIPELINE, ""),
            template=annotations.get(naming.TEMPLATE, ""),
            attempt=as_count(annotations.get(naming.ATTEMPT)),
            store_uid=annotations.get(naming.STORE_UID, ""),
            suspended=bool(as_object(manifest.get("spec")).get("suspend")),
            started_at=as_text(as_object(manifest.get("status")).get("startTime")) or None,
            finished_at=_finished_at(ending, detained_pod),
            phase=outcome.phase,
            result=outcome.result,
            failure=outcome.failure,
            problem=outcome.problem,
            detained=detained_pod is not None,
            unrecorded=None if naming.RESULT in annotations else outcome.record,
        )

    @property
    def is_finished(self) -> bool:
        """Whether it runs no more pods."""
        return _ending(self.conditions) is not None

    @property
    def unfinished(self) -> bool:
        """Whether its pods run, or still have to."""
        return self.phase in {"Queued", "Pending", "Running"}

    def due_to_end_at(self) -> datetime | None:
        """When the operator ends the Job, since Kubernetes does not; None for a Job that ends by itself."""
        if not self.detained or self.terminating or "activeDeadlineSeconds" in as_object(self.manifest.get("spec")):
            return None
        return parse_time(self.finished_at) + COMPANION_GRACE

    def retry_at(self) -> datetime | None:
        """When a failed Job may run again; None for never."""
        lost = self.phase == "Lost"
        if not lost and (self.failure is None or self.failure.permanent):
            return None
        # The store answers at once for what was built, so the first loss costs nothing.
        is_first_loss = lost and self.attempt == 0
        pause = 0 if is_first_loss else min(MIN_RETRY_SECONDS * 2 ** min(self.attempt, 10), MAX_RETRY_SECONDS)
        return parse_time(self.finished_at) + timedelta(seconds=pause)


def as_lost(job: JobView) -> JobView:
    """The Job for a pipeline with another store: whatever its outcome, the artifact is not in that store."""
    return replace(job, phase="Lost", attempt=0, result={}, failure=None, problem=None, unrecorded=None)


def needs_pods(manifest: JsonObject) -> bool:
    """Whether the Job's own object does not yet tell everything, so that its pods have to be observed."""
    conditions = as_objects(as_object(manifest.get("status")).get("conditions"))
    is_finished = any(as_text(item.get("type")) in ENDINGS and item.get("status") == "True" for item in conditions)
    return not is_finished or naming.RESULT not in as_object(manifest["metadata"].get("annotations"))


def lacks_pods(manifest: JsonObject, pods: Mapping[str, Sequence[PodView]]) -> bool:
    """Whether the Job should have pods and has none; `pods` are by the names of their Jobs."""
    is_suspended = bool(as_object(manifest.get("spec")).get("suspend"))
    return needs_pods(manifest) and not is_suspended and not pods.get(manifest["metadata"]["name"])


def _ending(conditions: Iterable[ConditionView]) -> ConditionView | None:
    """The condition that ended the Job."""
    return next((item for item in conditions if item.type in ENDINGS and item.is_true), None)


def _outcome(
    manifest: JsonObject, fields: dict[str, Any], ending: ConditionView | None, pods: Sequence[PodView]
) -> _Outcome:
    recorded = fields["annotations"].get(naming.RESULT)
    if ending is None and recorded is None and not any(map(_is_detained, pods)):
        return _unfinished(manifest, pods)
    is_complete = ending is not None and ending.type == "Complete"
    evidence = list(filter(_has_succeeded, pods)) if is_complete else pods
    record = recorded if recorded is not None else _record(evidence, fields["labels"].get(naming.STAGE, ""))
    result = checked_result(fields["labels"].get(naming.STAGE, ""), parse_json_object(record))
    if "error" in result if record is not None else not is_complete:
        message = ending.message if ending is not None else ""
        return _Outcome("Failed", failure=_failure(result, message, manifest), record=record)
    if result.get("digest") or result.get("stage") == Stage.GC:
        return _Outcome("Succeeded", result=result, record=record)
    return _Outcome("Lost")


def _unfinished(manifest: JsonObject, pods: Sequence[PodView]) -> _Outcome:
    if any(pod.is_running or _has_succeeded(pod) for pod in pods):
        return _Outcome("Running")
    if as_object(manifest.get("spec")).get("suspend"):
        return _Outcome("Queued")
    return _Outcome("Pending", problem=pod_problem(pods[0]) if pods else None)


def _no_pod(job: str, created_at: str, failure: str) -> PodProblem:
    """Normal for a moment; when it lasts, only the Job's own Events say why."""
    cause = failure or f"nothing says why; look again with kubectl describe job {job}"
    text = f"Job {job} gets no pod: {cause.rstrip('.')}."
    return PodProblem(Reason.OBJECT_REJECTED, text, created_at)


def _has_succeeded(pod: PodView) -> bool:
    """True before the Job controller has seen it, too."""
    return pod.termination is not None and pod.termination.exit_code == 0


def _is_detained(pod: PodView) -> bool:
    """True when the builder has ended, and Kubernetes waits for other containers, or counts their failure."""
    if pod.main is None or pod.main.termination is None:
        return False
    return pod.has_running_companion or (_has_succeeded(pod) and pod.phase == "Failed")


def _finished_at(ending: ConditionView | None, detained_pod: PodView | None) -> str | None:
    if ending is not None:
        return ending.changed_at or None
    termination = detained_pod.termination if detained_pod is not None else None
    return termination.finished_at or None if termination is not None else None


def _record(pods: Sequence[PodView], stage: str) -> str | None:
    """Termination message of the pod that succeeded, else of the newest, as JSON text; of a failure with its code."""
    ended = [pod.termination for pod in pods if pod.termination is not None]
    last = next((termination for termination in ended if termination.exit_code == 0), ended[0] if ended else None)
    if last is None:
        return None
    result = parse_json_object(last.message)
    if last.exit_code != 0:
        error = as_object(result.get("error")) or _default_error(last, stage)
        result = {"error": error, "exitCode": last.exit_code, "ended": last.reason}
    return json.dumps(result, separators=(",", ":"))


def _default_error(ended: Termination, stage: str) -> JsonObject:
    """For a builder that was killed before it could report why."""
    if ended.reason == "OOMKilled":
        owner = "engines" if stage in ENGINE_STAGES else "jobs"
        message = f"The Job ran out of memory: raise spec.{owner}.resources.limits.memory."
        return {"reason": Reason.OUT_OF_MEMORY, "message": message}
    if ended.reason == "DeadlineExceeded":
        advice = "the next interval continues it" if stage == Stage.GC else "raise spec.engines.timeout"
        return {"reason": Reason.TIMED_OUT, "message": f"The Job took longer than allowed: {advice}."}
    cause = ended.message.strip() or ended.reason or "nothing more is known; read the Job's log"
    return {"reason": Reason.BUILD_FAILED, "message": f"The builder ended with exit code {ended.exit_code}: {cause}"}


def _failure(result: JsonObject, job_message: str, manifest: JsonObject) -> Failure:
    error = result.get("error")
    if not isinstance(error, dict):
        text = f"The Job failed and its pod is gone: {job_message or 'no reason given'}"
        return Failure(Reason.RESULT_LOST, text, permanent=False)
    reason = as_text(error.get("reason"))
    reason = reason if REASON.fullmatch(reason) is not None else Reason.BUILD_FAILED
    is_fetch = as_object(manifest["metadata"].get("labels")).get(naming.STAGE) == Stage.FETCH
    # A download continues where it stopped; a compilation that was too slow or too big stays so.
    not_retryable = result.get("ended") == "OOMKilled" or (result.get("ended") == "DeadlineExceeded" and not is_fetch)
    permanent = result.get("exitCode") == ExitCode.BAD_INPUT or not_retryable
    message = str(error.get("message") or "The builder gave no message.")
    return Failure(reason, message, permanent=permanent and not _is_externally_fixable(reason, manifest))


def _is_externally_fixable(reason: str, manifest: JsonObject) -> bool:
    """True when the same pipeline may work later. A hub hides a repository from a token that may not read it."""
    template = as_object(as_object(manifest.get("spec")).get("template"))
    volumes = as_objects(as_object(template.get("spec")).get("volumes"))
    has_token = any(volume.get("name") == "token" for volume in volumes)
    return reason in EXTERNALLY_FIXABLE or (reason == BuildReason.REPOSITORY_NOT_FOUND and has_token)
