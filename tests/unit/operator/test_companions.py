"""Pods of build Jobs in which admission webhooks have added containers: only the builder's own decides."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.views.base import rfc3339
from diffusion_operator.views.job import JobView
from diffusion_operator.views.pod import PodView
from tests.support.operator.fake_cluster import FakeCluster, result_of
from tests.support.operator.reconciling import build, reconcile, settle

ENDED = "2026-01-01T00:00:00Z"
DIGEST = "d" * 64
RESULT = json.dumps({"digest": DIGEST})
STOPPED = {"name": "proxy", "state": {"terminated": {"exitCode": 143, "reason": "Error"}}}
RUNNING = {"name": "proxy", "state": {"running": {"startedAt": ENDED}}}


def job(condition: str = "") -> dict[str, Any]:
    """A Job of an export, with this condition."""
    conditions = [{"type": condition, "status": "True", "lastTransitionTime": ENDED}] if condition else []
    head = {"name": "export-denoiser-0123456789ab", "creationTimestamp": ENDED, "labels": {naming.STAGE: "export"}}
    return {"metadata": head, "status": {"conditions": conditions}}


def view(body: dict[str, Any], pods: list[dict[str, Any]]) -> JobView:
    return JobView.parse(body, map(PodView.parse, pods))


def error(reason: str) -> str:
    return json.dumps({"error": {"reason": reason, "message": "Do this."}})


def builder(code: int, message: str) -> dict[str, Any]:
    ended = {"exitCode": code, "message": message, "finishedAt": ENDED}
    return {"name": "build", "image": "b:1", "state": {"terminated": ended}}


def pod(phase: str, *containers: dict[str, Any], sidecar: dict[str, Any] | None = None) -> dict[str, Any]:
    """A pod with these containers in this order, and one native sidecar."""
    init = {"name": "proxy", "restartPolicy": "Always"}
    return {
        "metadata": {"name": "a", "creationTimestamp": ENDED},
        "spec": {"initContainers": [init] if sidecar else []},
        "status": {
            "phase": phase,
            "containerStatuses": list(containers),
            "initContainerStatuses": [sidecar] if sidecar else [],
        },
    }


@pytest.mark.parametrize(
    "body",
    [
        pod("Succeeded", builder(0, RESULT), sidecar=STOPPED),
        pod("Succeeded", {**STOPPED, "state": {"terminated": {"exitCode": 0}}}, builder(0, RESULT)),
    ],
    ids=["a native sidecar", "a container in front"],
)
def test_a_finished_job_has_the_builder_s_result(body: dict[str, Any]) -> None:
    complete = view(job("Complete"), [body])
    assert (complete.phase, complete.result) == ("Succeeded", {"digest": DIGEST})


@pytest.mark.parametrize(
    "body",
    [
        pod("Failed", builder(64, error("PickleOnly")), sidecar=STOPPED),
        pod("Failed", STOPPED, builder(64, error("PickleOnly"))),
    ],
    ids=["a native sidecar", "a container in front"],
)
def test_a_failed_job_has_the_builder_s_reason(body: dict[str, Any]) -> None:
    failure = view(job("Failed"), [body]).failure
    assert failure is not None
    assert (failure.reason, failure.permanent) == ("PickleOnly", True)
    problem = view(job(), [body]).problem
    assert problem is not None
    assert problem.reason == "PickleOnly"


def test_a_failing_companion_takes_nothing_from_a_good_result() -> None:
    for condition in ("Failed", ""):
        found = view(job(condition), [pod("Failed", builder(0, RESULT), STOPPED)])
        assert (found.phase, found.result) == ("Succeeded", {"digest": DIGEST})


def test_a_companion_that_never_ends_does_not_hide_the_result() -> None:
    found = view(job(), [pod("Running", RUNNING, builder(0, RESULT))])
    assert (found.phase, found.unrecorded, found.finished_at) == ("Succeeded", '{"digest":"' + DIGEST + '"}', ENDED)
    failed = view(job(), [pod("Running", builder(69, error("HubUnreachable")), RUNNING)])
    assert failed.failure is not None
    assert failed.failure.reason == "HubUnreachable"
    assert failed.retry_at() == datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)


def test_a_build_that_has_not_started_does_not_run_because_its_companion_does() -> None:
    waiting = {"name": "build", "image": "b:1", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}
    found = view(job(), [pod("Pending", RUNNING, waiting)])
    assert found.phase == "Pending"
    assert found.problem is not None
    assert found.problem.reason == "ImagePullBackOff"


def test_a_serving_pod_loses_readiness_only_since_its_server_started() -> None:
    server = {"name": "triton", "state": {"running": {"startedAt": "2026-01-01T00:05:00Z"}}}
    body = pod("Running", RUNNING, server)
    lost = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:01:00Z"}
    body["status"]["conditions"] = [lost]
    assert not PodView.parse(body).has_lost_readiness
    lost["lastTransitionTime"] = "2026-01-01T00:06:00Z"
    assert PodView.parse(body).has_lost_readiness


def detain(cluster: FakeCluster, *, seconds: int) -> dict[str, Any]:
    """The only unfinished Job, whose builder ended so many seconds ago beside a container that runs on."""
    settle(cluster)
    [body] = cluster.unfinished_jobs()
    state = builder(0, json.dumps(result_of(body)))
    state["state"]["terminated"]["finishedAt"] = rfc3339(datetime.now(UTC) - timedelta(seconds=seconds))
    cluster.add_pod(body, {"phase": "Running", "containerStatuses": [RUNNING, state]})
    return body


def test_a_detained_job_is_recorded_then_ended_and_the_build_goes_on() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    body = detain(cluster, seconds=60)
    reconcile(cluster)
    assert json.loads(body["metadata"]["annotations"][naming.RESULT])["stage"] == "fetch"
    assert "activeDeadlineSeconds" not in body["spec"]
    settle(cluster)
    assert body["spec"]["activeDeadlineSeconds"] == 1
    assert len(cluster.unfinished_jobs()) == 5  # the detained Job and four exports
    # So the Job controller ends it; the result is still the builder's.
    cluster.finish_job(body, "Failed")
    assert JobView.parse(body).phase == "Succeeded"
    assert build(cluster) == 10


def test_a_companion_gets_time_to_end_by_itself() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    body = detain(cluster, seconds=0)
    settle(cluster)
    assert naming.RESULT in body["metadata"]["annotations"]
    assert "activeDeadlineSeconds" not in body["spec"]
    again = reconcile(cluster)
    assert again is not None
    assert again <= 30
