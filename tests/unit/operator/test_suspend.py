"""spec.suspend stops everything of one pipeline, takes nothing from others, and costs no more than the time."""

import asyncio

import pytest

from diffusion_operator import naming
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import OTHER_REVISION, build, serve, settle

COMMON = {"claimName": "store"}
CLAIM = {"name": "store", "namespace": NAMESPACE}
STAGES = ("fetch", "export", "compile", "assemble", "parity")


def stages(cluster: FakeCluster) -> set[str]:
    return {job["metadata"]["labels"][naming.STAGE] for job in cluster.unfinished_jobs()}


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.apply_pipeline()
    settle(cluster)
    return cluster


@pytest.mark.parametrize("stage", STAGES)
def test_a_running_job_of_any_stage_is_stopped_and_only_it_is_done_again(cluster: FakeCluster, stage: str) -> None:
    while stages(cluster) != {stage}:
        cluster.succeed_jobs()
        settle(cluster)
    stopped, finished = len(cluster.unfinished_jobs()), cluster.names("Job")
    cluster.apply_pipeline(suspend=True)
    settle(cluster)
    assert cluster.unfinished_jobs() == []
    assert cluster.condition("Ready")["reason"] == "Suspended"
    job_count = len(cluster.names("Job"))
    assert job_count == len(finished) - stopped
    cluster.apply_pipeline()
    serve(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    assert set(finished) <= set(cluster.names("Job"))


def test_a_job_that_another_pipeline_needs_goes_on() -> None:
    cluster = FakeCluster()
    asyncio.run(cluster.create({"kind": "PersistentVolumeClaim", "metadata": CLAIM, "spec": {}}))
    for name in ("one", "two"):
        cluster.apply_pipeline(name, storage=COMMON)
        settle(cluster, name)
    [shared] = cluster.unfinished_jobs()
    cluster.apply_pipeline("one", storage=COMMON, suspend=True)
    settle(cluster, "one")
    [remaining_job] = cluster.unfinished_jobs()
    assert remaining_job["metadata"]["uid"] == shared["metadata"]["uid"]
    assert len(remaining_job["metadata"]["ownerReferences"]) == 1
    assert build(cluster, "two") > 0
    cluster.apply_pipeline("one", storage=COMMON)
    assert build(cluster, "one") == 0


def test_a_job_of_an_older_spec_is_stopped_too(cluster: FakeCluster) -> None:
    cluster.succeed_jobs()
    settle(cluster)
    assert stages(cluster) == {"export"}
    source = {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}
    cluster.apply_pipeline(suspend=True, model={"source": source})
    settle(cluster)
    assert cluster.unfinished_jobs() == []
