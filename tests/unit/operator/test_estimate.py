"""When a build should be done is told, from how long it took before."""

from typing import Any

import pytest

from diffusion_operator.api.status import BuildStatus
from diffusion_operator.plan.report import with_estimate
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import reconcile, serve, settle

START = "2026-01-01T00:00:00Z"
BUILT = {"state": "Ready", "seconds": 90.2, "cached": False}


@pytest.mark.parametrize(
    ("state", "before", "expected"),
    [
        ("Running", BUILT, "2026-01-01T00:01:30Z"),
        ("Running", {"state": "Pending", "lastSeconds": 60}, "2026-01-01T00:01:00Z"),
        ("Running", {**BUILT, "cached": True}, None),
        ("Running", {}, None),
        ("Pending", BUILT, None),
    ],
)
def test_the_end_is_the_start_and_the_last_duration(state: Any, before: dict[str, Any], expected: str | None) -> None:  # noqa: ANN401
    assert with_estimate(BuildStatus(state=state, started_at=START), before).expected_at == expected


def test_a_rebuild_of_a_component_says_when_it_should_be_done_and_does_not_write_again() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    serve(cluster)
    cluster.apply_pipeline(shapes={"batch": {"min": 1, "opt": 2, "max": 2}})
    settle(cluster)
    for job in cluster.unfinished_jobs():
        cluster.add_pod(job, {"containerStatuses": [{"name": "build", "state": {"running": {}}}]})
        job["status"] = {"startTime": START}
    settle(cluster)
    engine = cluster.pipeline()["status"]["components"]["denoiser"]["skus"]["cpu"]
    assert (engine["state"], engine["lastSeconds"], engine["expectedAt"]) == ("Running", 1.5, "2026-01-01T00:00:02Z")
    cluster.writes.clear()
    reconcile(cluster)
    assert cluster.writes == []


def test_the_server_gets_the_flags_that_its_repository_asks_for() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    for _ in range(3):
        settle(cluster)
        cluster.succeed_jobs()
    settle(cluster)
    [assemble] = cluster.unfinished_jobs()
    result = {
        "digest": "d" * 64,
        "ensembles": [],
        "serverFlags": ["--rate-limit=execution_count"],
        "estimatedGPUMemoryBytes": 5,
    }
    cluster.end_job(assemble, 0, result)
    settle(cluster)
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    [server] = cluster.objects["Deployment", deployment]["spec"]["template"]["spec"]["containers"]
    assert "--rate-limit=execution_count" in server["args"]
    assert cluster.pipeline()["status"]["targets"][0]["estimatedGPUMemoryBytes"] == 5
