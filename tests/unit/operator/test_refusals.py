"""What the API server refuses is named, and keeps nothing back that does not build on it."""

from typing import Any

import pytest

from diffusion_operator.kube_client import RejectedError
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import build, reconcile, serve, settle

TWO = [{"name": "first"}, {"name": "second"}]


class PickyCluster(FakeCluster):
    """Refuses to write objects whose path and name hold one of these texts."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()

    async def request(self, method: str, path: str, body: Any = None, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        name = body["metadata"]["name"] if method == "POST" else ""
        if method != "GET" and any(text in f"{path}/{name}" for text in self.texts):
            raise RejectedError(f"{method} {path}: the webhook says no (HTTP 422).")
        return await super().request(method, path, body, *arguments, **options)


@pytest.fixture
def cluster() -> PickyCluster:
    picky = PickyCluster()
    picky.apply_pipeline(targets=TWO)
    return picky


def targets(cluster: FakeCluster) -> set[str]:
    """Targets that have a Deployment."""
    bodies = [body for (kind, _), body in cluster.objects.items() if kind == "Deployment"]
    return {body["metadata"]["labels"]["diffusion-operator.io/target"] for body in bodies}


def test_a_refused_object_is_named_and_the_other_target_is_served(cluster: PickyCluster) -> None:
    cluster.texts = {"/deployments/shapes-first-"}
    build(cluster)
    condition = cluster.condition("Accepted")
    assert (condition["status"], condition["reason"]) == ("False", "ObjectRejected")
    assert "Deployment shapes-first-" in condition["message"]
    assert "the webhook says no" in condition["message"]
    assert targets(cluster) == {"second"}
    [deployment] = cluster.names("Deployment")
    cluster.set_ready(deployment, 1)
    settle(cluster)
    assert "shapes-second" in cluster.names("PodDisruptionBudget")


def test_every_refused_object_is_named_and_the_first_reason_counts(cluster: PickyCluster) -> None:
    cluster.texts = {"/deployments/shapes-first-", "/deployments/shapes-second-"}
    build(cluster)
    message = cluster.condition("Accepted")["message"]
    assert "Deployment shapes-first-" in message
    assert "Deployment shapes-second-" in message
    assert cluster.names("Deployment") == []


def test_nothing_is_taken_from_a_target_whose_new_objects_are_refused(cluster: PickyCluster) -> None:
    serve(cluster)
    before = cluster.names("Deployment")
    cluster.texts = {"/services/shapes-first"}
    cluster.apply_pipeline(targets=TWO, serving={"image": "triton:2"})
    serve(cluster)
    assert [name for name in before if name in cluster.names("Deployment")] == [
        name for name in before if name.startswith("shapes-first-")
    ]
    cluster.texts = set()
    serve(cluster)
    assert not set(before) & set(cluster.names("Deployment"))
    assert cluster.condition("Ready")["status"] == "True"


def add_event(cluster: FakeCluster, job: dict[str, Any], message: str, time: str) -> None:
    """The Job controller could not create a pod."""
    head = {"name": f"e{time}", "namespace": NAMESPACE}
    subject = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    body = {"reason": "FailedCreate", "message": message, "lastTimestamp": time, "involvedObject": subject}
    cluster.objects["Event", head["name"]] = {"kind": "Event", "metadata": head, **body}


def test_a_job_without_a_pod_says_why_in_the_job_controller_s_words() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    reconcile(cluster)
    condition = cluster.condition("EnginesReady")
    assert condition["reason"] == "ObjectRejected"
    assert f"kubectl describe job {job['metadata']['name']}" in condition["message"]
    words = 'Error creating: pods "x" is forbidden: no PriorityClass with name gold was found'
    add_event(cluster, job, "an older reason", "2026-01-01T00:00:01Z")
    add_event(cluster, job, words, "2026-01-01T00:00:02Z")
    reconcile(cluster)
    message = cluster.condition("EnginesReady")["message"]
    assert message == f"Job {job['metadata']['name']} gets no pod: {words}."


def test_an_account_that_may_not_list_events_observes_everything_else() -> None:
    class WithoutEvents(FakeCluster):
        async def request(self, method: str, path: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if method == "GET" and path.endswith("/events"):
                raise RejectedError("GET events: is forbidden (HTTP 403).")
            return await super().request(method, path, *arguments, **options)

    cluster = WithoutEvents()
    cluster.apply_pipeline()
    serve(cluster)
    assert cluster.condition("Ready")["status"] == "True"
