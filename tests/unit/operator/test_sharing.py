"""What several pipelines share, and what is left when one of them goes."""

import asyncio

import pytest

from diffusion_operator.api import KIND
from diffusion_operator.kube_client import ConflictError
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import build, reconcile, serve, settle


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    return fake


def test_two_pipelines_on_one_store_share_every_job(cluster: FakeCluster) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    cluster.apply_pipeline(storage={"claimName": "common"})
    cluster.apply_pipeline("twin", storage={"claimName": "common"})
    assert serve(cluster) == 11
    assert serve(cluster, "twin") == 0
    assert cluster.condition("Ready", "twin")["status"] == "True"
    cluster.delete_pipeline()
    settle(cluster, "twin")
    assert cluster.condition("Ready", "twin")["status"] == "True"
    assert len(cluster.names("Job")) == 11
    cluster.delete_pipeline("twin")
    assert cluster.names("Job") == []


def test_leaving_a_shared_job_does_not_take_it_from_the_other(cluster: FakeCluster) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    for name in ("shapes", "twin"):
        cluster.apply_pipeline(name, storage={"claimName": "common"})
        serve(cluster, name)
    cluster.apply_pipeline(storage={"claimName": "common"}, scheduler={"type": "Euler"})
    serve(cluster)
    cluster.writes.clear()
    reconcile(cluster, "twin")
    assert cluster.writes == []
    assert cluster.condition("Ready", "twin")["status"] == "True"


def test_a_new_store_is_filled_anew(cluster: FakeCluster) -> None:
    serve(cluster)
    del cluster.objects["PersistentVolumeClaim", "shapes-store"]
    assert build(cluster) == 11


def test_deleting_a_pipeline_leaves_nothing(cluster: FakeCluster) -> None:
    serve(cluster)
    cluster.delete_pipeline()
    assert reconcile(cluster) is None
    assert {kind for kind, _ in cluster.objects} <= {"Event"}


def test_what_a_deleted_pipeline_of_the_same_name_left_is_not_taken_for_ours(cluster: FakeCluster) -> None:
    serve(cluster)
    # Deleted and created anew before Kubernetes collected anything.
    del cluster.objects[KIND, "shapes"]
    cluster.apply_pipeline()
    with pytest.raises(ConflictError, match="still going"):
        reconcile(cluster)
    orphans = [key for key, item in cluster.objects.items() if item["metadata"].get("ownerReferences")]
    for key in orphans:
        del cluster.objects[key]
    assert serve(cluster) == 11
    assert cluster.condition("Ready")["status"] == "True"


def test_the_jobs_of_a_deleted_pipeline_are_joined_before_they_are_collected(cluster: FakeCluster) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    cluster.apply_pipeline(storage={"claimName": "common"})
    serve(cluster)
    del cluster.objects[KIND, "shapes"]
    uid = cluster.apply_pipeline(storage={"claimName": "common"})["metadata"]["uid"]
    reconcile(cluster)
    fetch = next(item for (kind, name), item in cluster.objects.items() if kind == "Job" and name.startswith("fetch"))
    assert uid in [owner["uid"] for owner in fetch["metadata"]["ownerReferences"]]
