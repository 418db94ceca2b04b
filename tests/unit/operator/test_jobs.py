"""What a Job and its pods say, and when a failed one may run again."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.observation import FinishedJobs
from diffusion_operator.views.job import JobView
from diffusion_operator.views.pod import PodView

ENDED = "2026-01-01T00:00:00Z"
END = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "d" * 64


def job(
    condition: str = "", *, stage: str = "export", attempt: int = 0, recorded_result: str | None = None
) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True", "lastTransitionTime": ENDED, "message": "as told"}]
    return {
        "metadata": {
            "name": "export-denoiser-0123456789ab",
            "uid": "1",
            "resourceVersion": "1",
            "creationTimestamp": ENDED,
            "labels": {naming.STAGE: stage, naming.PIPELINE: "shapes"},
            "annotations": {naming.ATTEMPT: str(attempt)}
            | ({naming.RESULT: recorded_result} if recorded_result is not None else {}),
        },
        "status": {"conditions": conditions if condition else []},
    }


def pod(name: str = "a", created: str = ENDED, **state: Any) -> dict[str, Any]:  # noqa: ANN401 - a container's state
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"volumes": [{"secret": {"secretName": "hub"}}, {"persistentVolumeClaim": {"claimName": "store"}}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "build", "image": "b:1", "state": state}]},
    }


def ended(code: int, message: str = "", reason: str = "", name: str = "a") -> dict[str, Any]:
    return pod(name, terminated={"exitCode": code, "message": message, "reason": reason})


def error(reason: str) -> str:
    return json.dumps({"error": {"reason": reason, "message": "Do this."}})


def view(job: dict[str, Any], pods: list[dict[str, Any]]) -> JobView:
    return JobView.parse(job, map(PodView.parse, pods))


def failed(code: int, message: str = "", reason: str = "", **fields: Any) -> JobView:  # noqa: ANN401 - of job()
    return view(job("Failed", **fields), [ended(code, message, reason)])


def test_a_result_is_read_from_the_pod_and_then_from_the_job() -> None:
    first = view(job("Complete"), [ended(0, json.dumps({"digest": DIGEST}))])
    assert first.phase == "Succeeded"
    assert first.unrecorded is not None
    later = view(job("Complete", recorded_result=first.unrecorded), [])
    assert (later.phase, later.result, later.unrecorded) == ("Succeeded", {"digest": DIGEST}, None)


def test_a_container_in_front_that_failed_says_why_and_one_that_ended_well_nothing() -> None:
    initializing_pod = pod(waiting={"reason": "PodInitializing"})
    states = [{"terminated": {"exitCode": 0}}, {"terminated": {"exitCode": 1, "message": "no model to score with"}}]
    initializing_pod["status"] |= {"initContainerStatuses": [{"name": "x", "state": state} for state in states]}
    failure = view(job("Failed", stage="compare"), [initializing_pod]).failure
    assert failure is not None
    assert "no model to score with" in failure.message
    good = ended(0, json.dumps({"digest": DIGEST}))
    good["status"]["initContainerStatuses"] = [{"name": "x", "state": states[0]}]
    assert view(job("Complete", stage="compare"), [good]).phase == "Succeeded"


@pytest.mark.parametrize("message", ["", "not json", "[]", "{}"])
def test_success_without_a_digest_is_lost(message: str) -> None:
    assert view(job("Complete"), [ended(0, message)]).phase == "Lost"


def test_the_newest_pod_has_the_last_word() -> None:
    older = ended(69, error("HubUnreachable"), name="older")
    newer = pod("newer", "2026-01-01T00:01:00Z", terminated={"exitCode": 64, "message": error("PickleOnly")})
    job_view = view(job("Failed"), [older, newer])
    assert job_view.failure is not None
    assert job_view.failure.reason == "PickleOnly"


@pytest.mark.parametrize(
    ("job_view", "reason", "permanent"),
    [
        (failed(64, error("PickleOnly")), "PickleOnly", True),
        (failed(64, error("AccessDenied"), stage="fetch"), "AccessDenied", False),
        (failed(69, error("HubUnreachable")), "HubUnreachable", False),
        (failed(74, error("StoreFull")), "StoreFull", False),
        (failed(70, error("InternalError")), "InternalError", False),
        (failed(137, "", "OOMKilled"), "OutOfMemory", True),
        (failed(143, "", "DeadlineExceeded"), "TimedOut", True),
        (failed(143, "", "DeadlineExceeded", stage="fetch"), "TimedOut", False),
        (failed(1, "Traceback"), "BuildFailed", False),
        (view(job("Failed"), []), "ResultLost", False),
    ],
)
def test_what_failed_and_whether_trying_again_can_help(job_view: JobView, reason: str, permanent: bool) -> None:  # noqa: FBT001
    assert job_view.failure is not None
    assert (job_view.failure.reason, job_view.failure.permanent) == (reason, permanent)
    assert (job_view.retry_at() is None) == permanent


def test_pauses_grow_up_to_a_quarter_of_an_hour() -> None:
    pauses = []
    for attempt in range(8):
        retry = failed(69, error("HubUnreachable"), attempt=attempt).retry_at()
        assert retry is not None
        pauses.append((retry - END) / timedelta(seconds=1))
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]


def test_a_lost_result_is_built_again_at_once_but_not_for_ever() -> None:
    assert view(job("Complete"), []).retry_at() == END
    again = view(job("Complete", attempt=3), []).retry_at()
    assert again is not None
    assert again > END


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"waiting": {"reason": "ErrImagePull", "message": "not found"}}, "ImagePullBackOff"),
        ({"waiting": {"reason": "CreateContainerConfigError", "message": "no"}}, "ContainerConfigError"),
        ({"terminated": {"exitCode": 69, "message": error("HubUnreachable")}}, "HubUnreachable"),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "OutOfMemory"),
    ],
)
def test_what_keeps_a_job_from_running(state: dict[str, Any], reason: str) -> None:
    job_view = view(job(), [pod(**state)])
    assert job_view.phase == "Pending"
    assert job_view.problem is not None
    assert job_view.problem.reason == reason


def test_the_two_texts_of_a_failing_pull_are_told_as_one() -> None:
    first = pod(waiting={"reason": "ErrImagePull", "message": "not found"})
    then = pod(
        waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "b:1": ErrImagePull: not found'}
    )
    messages = {
        str(problem.message) for problem in (view(job(), [one]).problem for one in (first, then)) if problem is not None
    }
    assert len(messages) == 1


def test_a_missing_secret_is_named() -> None:
    waiting = pod(waiting={"reason": "ContainerCreating"})
    waiting["status"]["conditions"] = [{"type": "PodReadyToStartContainers", "status": "False"}]
    problem = view(job(), [waiting]).problem
    assert problem is not None
    assert "Secret hub" in problem.message
    assert "claim store" in problem.message


def test_no_node_is_told_in_the_scheduler_s_words() -> None:
    unschedulable = pod()
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    unschedulable["status"] = {"conditions": [condition]}
    problem = view(job(), [unschedulable]).problem
    assert problem is not None
    assert problem.reason == "Unschedulable"
    assert "0/1 nodes are available" in problem.message


def test_a_build_runs_until_its_job_says_that_it_ended() -> None:
    assert view(job(), [pod(running={})]).phase == "Running"
    assert view(job(), [ended(0, json.dumps({"digest": DIGEST}))]).phase == "Running"


def test_a_finished_job_is_parsed_once_for_all_pipelines_until_it_changes() -> None:
    manifest = job("Complete", recorded_result=json.dumps({"digest": DIGEST}))
    finished_jobs = FinishedJobs()
    view = finished_jobs.view(manifest)
    assert view == JobView.parse(manifest)
    assert finished_jobs.view(dict(manifest)) is view
    changed = {**manifest, "metadata": manifest["metadata"] | {"resourceVersion": "4711", "ownerReferences": []}}
    assert finished_jobs.view(changed).owner_uids == frozenset()
    assert finished_jobs.view(manifest) is view
