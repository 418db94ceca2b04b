"""From a spec to a served pipeline, and what goes wrong on the way."""

import json
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.settings import Settings
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import OTHER_REVISION, build, reconcile, serve, settle


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    return fake


def test_a_pipeline_goes_all_the_way_with_eleven_jobs(cluster: FakeCluster) -> None:
    assert serve(cluster) == 11  # 1 fetch, 4 exports, 4 engines, 1 repository and its parity
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.pipeline()["status"]["summary"] == {"engines": "4/4", "targets": "1/1"}
    assert cluster.pipeline()["status"]["ensembles"] == ["generate_20_pipeline"]


def test_a_settled_pipeline_is_looked_at_without_a_single_write(cluster: FakeCluster) -> None:
    serve(cluster)
    cluster.writes.clear()
    assert reconcile(cluster) is None
    assert cluster.writes == []


def test_bad_input_is_told_and_not_tried_again(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "PickleOnly", "message": "Convert unet to safetensors."}})
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    for _ in range(3):
        assert reconcile(cluster) is None
    condition = cluster.condition("EnginesReady")
    assert condition["reason"] == "PickleOnly"
    assert "Convert unet to safetensors." in condition["message"]
    assert cluster.condition("Ready")["reason"] == "PickleOnly"
    assert cluster.unfinished_jobs() == []
    warnings = [item for (kind, _), item in cluster.objects.items() if kind == "Event"]
    assert [item["reason"] for item in warnings] == ["PickleOnly"]


def test_fixing_the_spec_recovers_without_help(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "RevisionNotFound", "message": "No such commit."}})
    settle(cluster)
    spec = {"source": {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}}
    cluster.apply_pipeline(model=spec)
    serve(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    assert job["metadata"]["name"] not in cluster.names("Job")


def test_an_unreachable_hub_is_tried_again_later_and_less_and_less_often(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 69, {"error": {"reason": "HubUnreachable", "message": "The hub does not answer."}})
    again = reconcile(cluster)
    assert again is not None
    assert cluster.condition("EnginesReady")["reason"] == "HubUnreachable"
    assert cluster.unfinished_jobs() == []
    condition = job["status"]["conditions"][0]
    condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    reconcile(cluster)
    [second] = cluster.unfinished_jobs()
    assert second["metadata"]["annotations"][naming.ATTEMPT] == "1"


def test_a_new_hub_endpoint_gives_a_failed_fetch_a_new_chance_soon(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "RepositoryNotFound", "message": "No such repository."}})
    settle(cluster)
    changed = Settings("builder:1", "triton:1", hub_endpoint="http://other")
    assert reconcile(cluster, settings=changed) is not None
    assert cluster.unfinished_jobs() == []  # two operators with different settings must not race
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    reconcile(cluster, settings=changed)
    assert len(cluster.unfinished_jobs()) == 1


def test_a_change_of_the_unet_alone_builds_one_export_and_one_engine(cluster: FakeCluster) -> None:
    serve(cluster)
    spec = {"source": {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}}
    cluster.apply_pipeline(model=spec)
    assert build(cluster) == 5  # fetch, export and compile of the denoiser, assemble, parity
    assert len(cluster.names("Job")) == 11


@pytest.mark.parametrize(
    "change",
    [
        {"scheduler": {"type": "Euler"}},
        {"pipelines": [{"task": "generate", "steps": [4]}]},
        {"serving": {"batching": {"maxQueueDelay": "5ms"}}},
        {"serving": {"batching": {"takeTurns": False}}},
    ],
    ids=["scheduler", "steps", "delay", "turns"],
)
def test_what_only_changes_the_ensemble_builds_only_a_repository(cluster: FakeCluster, change: dict[str, Any]) -> None:
    serve(cluster)
    cluster.apply_pipeline(**change)
    assert build(cluster) == 2  # assemble and parity


@pytest.mark.parametrize(
    "scheduler",
    [{"type": "PNDM"}, {"type": "UniPCMultistep", "useKarrasSigmas": True, "timestepSpacing": "trailing"}],
    ids=["type alone", "settings"],
)
def test_the_repository_gets_what_the_scheduler_says_and_no_more(
    cluster: FakeCluster, scheduler: dict[str, Any]
) -> None:
    build(cluster)
    cluster.apply_pipeline(scheduler=scheduler)
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert json.loads(arguments[arguments.index("--spec") + 1])["schedulers"] == [scheduler]


def test_a_claim_that_does_not_exist_is_named(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(storage={"claimName": "nowhere"})
    settle(cluster)
    assert cluster.condition("EnginesReady")["reason"] == "StorageNotFound"
    assert "spec.storage.claimName" in cluster.condition("Ready")["message"]
    assert cluster.names("PersistentVolumeClaim") == []


def test_a_spec_that_this_version_cannot_read_is_answered_and_nothing_is_touched(cluster: FakeCluster) -> None:
    serve(cluster)
    before = cluster.names("Deployment")
    cluster.apply_pipeline(precision="float8")
    settle(cluster)
    assert cluster.condition("Accepted")["reason"] == "InvalidSpec"
    assert "precision" in cluster.condition("Accepted")["message"]
    assert cluster.names("Deployment") == before


def test_a_new_builder_image_rebuilds_nothing(cluster: FakeCluster) -> None:
    serve(cluster)
    for key, item in cluster.objects.items():
        if key[0] == "Job":
            item["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.writes.clear()
    reconcile(cluster, settings=Settings("builder:2", "triton:1", hub_endpoint="http://hub"))
    assert cluster.writes == []


def test_one_build_waiting_for_room_while_another_runs_is_no_trouble(cluster: FakeCluster) -> None:
    settle(cluster)
    cluster.succeed_jobs()
    settle(cluster)
    jobs = cluster.unfinished_jobs()
    full = {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "full"}
    cluster.add_pod(jobs[0], {"containerStatuses": [{"name": "build", "state": {"running": {}}}]})
    for job in jobs[1:]:
        cluster.add_pod(job, {"conditions": [full]})
    reconcile(cluster)
    assert cluster.condition("EnginesReady")["reason"] == "Exporting"
    for key in [key for key in cluster.objects if key[0] == "Pod" and key[1].startswith(jobs[0]["metadata"]["name"])]:
        del cluster.objects[key]
    reconcile(cluster)
    assert cluster.condition("EnginesReady")["reason"] == "Unschedulable"


def test_a_repository_that_generates_other_images_than_diffusers_is_not_served(cluster: FakeCluster) -> None:
    serve(cluster)
    [old] = cluster.names("Deployment")
    cluster.apply_pipeline(scheduler={"type": "Euler"})
    settle(cluster)
    cluster.succeed_jobs()
    settle(cluster)
    assert cluster.condition("RepositoryReady")["reason"] == "CheckingParity"
    [parity] = cluster.unfinished_jobs()
    cluster.end_job(
        parity, 64, {"error": {"reason": "ParityFailed", "message": "generate_20_pipeline: 12 dB of 35 dB"}}
    )
    settle(cluster)
    assert cluster.condition("RepositoryReady")["reason"] == "ParityFailed"
    assert "12 dB" in cluster.condition("Ready")["message"]
    assert cluster.names("Deployment") == [old]
    assert cluster.condition("Available")["status"] == "True"


def test_the_figures_of_the_check_are_in_the_status(cluster: FakeCluster) -> None:
    serve(cluster)
    [target] = cluster.pipeline()["status"]["targets"]
    assert target["check"]["worstPSNR"] == 61.5
    assert target["check"]["state"] == "Ready"
