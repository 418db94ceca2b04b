"""The store is cleaned now and then, and nothing goes that somebody needs."""

import asyncio
import json
from typing import Any

import pytest

from diffusion_operator import naming
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster, result_of
from tests.support.operator.reconciling import OTHER_REVISION, build, reconcile, serve, settle

DAILY = {"interval": "24h", "grace": "12h"}
COMMON = {"claimName": "common", "gc": DAILY}


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(fake.create(claim))
    fake.apply_pipeline(storage=COMMON)
    return fake


def collections(cluster: FakeCluster) -> list[dict[str, Any]]:
    return [item for (kind, name), item in cluster.objects.items() if kind == "Job" and name.startswith("gc-")]


def arguments(job: dict[str, Any]) -> list[str]:
    return list(job["spec"]["template"]["spec"]["containers"][0]["args"])


def keep_digests(job: dict[str, Any]) -> set[str]:
    argv = arguments(job)
    return {digest for index, text in enumerate(argv) if text == "--keep" for digest in argv[index + 1].split(",")}


def builds(cluster: FakeCluster) -> list[dict[str, Any]]:
    return [item for (kind, name), item in cluster.objects.items() if kind == "Job" and not name.startswith("gc-")]


def needed(cluster: FakeCluster) -> set[str]:
    return {str(result_of(job)["digest"]) for job in builds(cluster)}


def test_without_being_asked_for_nothing_is_ever_deleted(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(storage={"claimName": "common"})
    serve(cluster)
    assert collections(cluster) == []


def test_it_waits_until_everything_is_built_and_runs_once(cluster: FakeCluster) -> None:
    settle(cluster)
    while cluster.unfinished_jobs() and not collections(cluster):
        cluster.succeed_jobs()
        settle(cluster)
    [job] = cluster.unfinished_jobs()
    assert collections(cluster) == [job]
    assert arguments(job)[2:6] == ["store", "gc", "--store", "/store"]
    assert arguments(job)[arguments(job).index("--grace") + 1] == "12h"
    assert "--dry-run" not in arguments(job)
    serve(cluster)
    assert [item["metadata"]["uid"] for item in collections(cluster)] == [job["metadata"]["uid"]]


def test_what_any_pipeline_needs_or_serves_is_kept(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(storage={"claimName": "common"})
    source = {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}
    cluster.apply_pipeline("twin", storage={"claimName": "common"}, model={"source": source})
    serve(cluster)
    serve(cluster, "twin")
    [old] = [item for (kind, _), item in cluster.objects.items() if kind == "Deployment" and "twin" in str(item)]
    served_repository = old["metadata"]["annotations"][naming.REPOSITORY]
    cluster.apply_pipeline("twin", storage={"claimName": "common"})  # what it serves is now older than what it wants
    settle(cluster, "twin")
    cluster.apply_pipeline(storage=COMMON | {"retain": ["deadbeef"]})
    settle(cluster)
    [job] = collections(cluster)
    assert keep_digests(job) == needed(cluster) | {served_repository, "deadbeef"}
    assert len(needed(cluster)) == len(builds(cluster)) >= 10


def test_only_one_of_several_pipelines_collects(cluster: FakeCluster) -> None:
    cluster.apply_pipeline("another", storage=COMMON)
    cluster.apply_pipeline("elsewhere", storage={"size": "1Gi"})
    for name in ("shapes", "another", "elsewhere"):
        serve(cluster, name)
    [job] = collections(cluster)
    assert job["metadata"]["labels"][naming.PIPELINE] == "another"
    cluster.delete_pipeline("another")
    settle(cluster)
    [job] = collections(cluster)
    assert job["metadata"]["labels"][naming.PIPELINE] == "shapes"


def test_the_status_says_what_was_freed(cluster: FakeCluster) -> None:
    serve(cluster)
    collection = cluster.pipeline()["status"]["garbageCollection"]
    assert (collection["state"], collection["freedBytes"], collection["deleted"], collection["retained"]) == (
        "Succeeded",
        4096,
        3,
        9,
    )
    assert collection["dryRun"] is False
    cluster.writes.clear()
    reconcile(cluster)
    assert cluster.writes == []


def test_a_dry_run_says_what_would_be_freed(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(storage=COMMON | {"gc": DAILY | {"dryRun": True}})
    serve(cluster)
    assert cluster.pipeline()["status"]["garbageCollection"]["dryRun"] is True


def test_the_last_result_stays_until_the_next_is_there(cluster: FakeCluster) -> None:
    serve(cluster)
    [job] = collections(cluster)
    yesterday = "gc-000000000000"
    cluster.objects["Job", yesterday] = cluster.objects.pop(("Job", job["metadata"]["name"]))
    job["metadata"]["name"] = yesterday
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    settle(cluster)
    assert len(collections(cluster)) == 2
    assert cluster.pipeline()["status"]["garbageCollection"]["job"] == yesterday
    build(cluster)
    [newest] = collections(cluster)
    assert cluster.pipeline()["status"]["garbageCollection"]["job"] == newest["metadata"]["name"] != yesterday


def test_a_failure_is_told_and_the_pipeline_stays_ready(cluster: FakeCluster) -> None:
    build_all_but_collection(cluster)
    [job] = collections(cluster)
    cluster.end_job(job, 74, {"error": {"reason": "ArtifactDamaged", "message": "engines/ab is damaged."}})
    settle(cluster)
    assert cluster.pipeline()["status"]["garbageCollection"]["state"] == "Failed"
    assert "engines/ab" in cluster.pipeline()["status"]["garbageCollection"]["message"]
    assert cluster.condition("EnginesReady")["status"] == "True"


def build_all_but_collection(cluster: FakeCluster) -> None:
    settle(cluster)
    while waiting := [job for job in cluster.unfinished_jobs() if not job["metadata"]["name"].startswith("gc-")]:
        for job in waiting:
            cluster.end_job(job, 0, json.loads(json.dumps(result_of(job))))
        settle(cluster)


def test_a_suspended_pipeline_cleans_nothing(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(storage={"claimName": "common"})
    serve(cluster)
    cluster.apply_pipeline(storage=COMMON, suspend=True)
    settle(cluster)
    assert collections(cluster) == []
