"""Whatever is lost or dies in between, the next pass makes good."""

from typing import Any

import pytest

from diffusion_operator.errors import UnavailableError
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import reconcile, serve, settle


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    return fake


def test_losing_the_status_loses_nothing(cluster: FakeCluster) -> None:
    serve(cluster)
    before = {key: item["metadata"]["uid"] for key, item in cluster.objects.items() if key[0] != "Event"}
    del cluster.pipeline()["status"]
    settle(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    assert before == {key: item["metadata"]["uid"] for key, item in cluster.objects.items() if key[0] != "Event"}


def test_results_survive_their_pods(cluster: FakeCluster) -> None:
    serve(cluster)
    for key in [key for key in cluster.objects if key[0] == "Pod"]:
        del cluster.objects[key]
    cluster.writes.clear()
    reconcile(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.writes == []


def test_a_job_whose_result_nobody_read_is_run_again(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.finish_job(job, "Complete")
    reconcile(cluster)
    [again] = cluster.unfinished_jobs()
    assert again["metadata"]["name"] == job["metadata"]["name"]
    assert again["metadata"]["uid"] != job["metadata"]["uid"]


def test_a_pass_that_dies_anywhere_is_made_good_by_the_next() -> None:
    """Kills the operator before each write in turn; the end is always the same."""
    ends = set()
    for deadly in range(1, 40):
        cluster = DyingCluster(deadly)
        cluster.apply_pipeline()
        live_on(cluster)
        ends.add((cluster.condition("Ready")["status"], *cluster.names("Job"), *cluster.names("Service")))
    assert len(ends) == 1
    assert next(iter(ends))[0] == "True"


def live_on(cluster: FakeCluster) -> None:
    """The operator is started anew whenever it dies; everything else works."""
    for _ in range(40):
        try:
            reconcile(cluster)
        except UnavailableError:
            continue
        if cluster.condition("Ready")["status"] == "True":
            return
        cluster.succeed_jobs()
        for deployment in cluster.names("Deployment"):
            cluster.set_ready(deployment, 1)


class DyingCluster(FakeCluster):
    """Fails at one write."""

    def __init__(self, deadly: int) -> None:
        super().__init__()
        self._remaining_requests = deadly

    async def request(self, method: str, path: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:  # noqa: ANN401
        if method != "GET":
            self._remaining_requests -= 1
            if self._remaining_requests == 0:
                raise UnavailableError("killed")
        return await super().request(method, path, *args, **kwargs)
