"""Whole passes against an API server in memory."""

import asyncio
import json
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.cluster import Cluster, ConflictError
from diffusion_operator.errors import UnavailableError
from diffusion_operator.reconcile import Key, Reconciler
from diffusion_operator.settings import Settings
from tests.unit.operator.fake_cluster import NAMESPACE, FakeCluster

SETTINGS = Settings(builder_image="builder:1", serving_image="triton:1", hub_endpoint="http://hub")
OTHER_REVISION = "f" * 40


def look(cluster: Cluster, name: str = "shapes", settings: Settings = SETTINGS) -> float | None:
    return asyncio.run(Reconciler(cluster, settings).reconcile(Key(NAMESPACE, name)))


def settle(cluster: FakeCluster, name: str = "shapes") -> None:
    """Passes until nothing is written any more."""
    for _ in range(10):
        cluster.writes.clear()
        look(cluster, name)
        if not cluster.writes:
            return
    raise AssertionError(f"still writing: {cluster.writes}")


def build(cluster: FakeCluster, name: str = "shapes") -> int:
    """Let all builds succeed; returns the number of Jobs."""
    jobs = 0
    settle(cluster, name)
    while (finished := cluster.succeed_jobs()) > 0:
        jobs += finished
        settle(cluster, name)
    return jobs


def serve(cluster: FakeCluster, name: str = "shapes") -> int:
    """Let everything succeed until the pipeline is served; returns the number of Jobs."""
    jobs = build(cluster, name)
    for deployment in cluster.names("Deployment"):
        cluster.set_ready(deployment, cluster.objects["Deployment", deployment]["spec"]["replicas"])
    settle(cluster, name)
    return jobs


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    return fake


def test_a_pipeline_goes_all_the_way_with_ten_jobs(cluster: FakeCluster) -> None:
    assert serve(cluster) == 10  # 1 fetch, 4 exports, 4 engines, 1 repository
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.pipeline()["status"]["summary"] == {"engines": "4/4", "targets": "1/1"}
    assert cluster.pipeline()["status"]["ensembles"] == ["generate_20_pipeline"]


def test_a_settled_pipeline_is_looked_at_without_a_single_write(cluster: FakeCluster) -> None:
    serve(cluster)
    cluster.writes.clear()
    assert look(cluster) is None
    assert cluster.writes == []


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
    look(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    assert cluster.writes == []


def test_a_job_whose_result_nobody_read_is_run_again(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.finish_job(job, "Complete")
    look(cluster)
    [again] = cluster.unfinished_jobs()
    assert again["metadata"]["name"] == job["metadata"]["name"]
    assert again["metadata"]["uid"] != job["metadata"]["uid"]


def test_bad_input_is_told_and_not_tried_again(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "PickleOnly", "message": "Convert unet to safetensors."}})
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    for _ in range(3):
        assert look(cluster) is None
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
    again = look(cluster)
    assert again is not None
    assert cluster.condition("EnginesReady")["reason"] == "HubUnreachable"
    assert cluster.unfinished_jobs() == []
    condition = job["status"]["conditions"][0]
    condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    look(cluster)
    [second] = cluster.unfinished_jobs()
    assert second["metadata"]["annotations"][naming.ATTEMPT] == "1"


def test_a_new_hub_endpoint_gives_a_failed_fetch_a_new_chance_soon(cluster: FakeCluster) -> None:
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "RepositoryNotFound", "message": "No such repository."}})
    settle(cluster)
    changed = Settings("builder:1", "triton:1", hub_endpoint="http://other")
    assert look(cluster, settings=changed) is not None
    assert cluster.unfinished_jobs() == []  # two operators with different settings must not race
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    look(cluster, settings=changed)
    assert len(cluster.unfinished_jobs()) == 1


def test_a_change_of_the_unet_alone_builds_one_export_and_one_engine(cluster: FakeCluster) -> None:
    serve(cluster)
    spec = {"source": {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}}
    cluster.apply_pipeline(model=spec)
    assert build(cluster) == 4  # fetch, export and compile of the denoiser, assemble
    assert len(cluster.names("Job")) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"scheduler": {"type": "Euler"}},
        {"pipelines": [{"task": "generate", "steps": [4]}]},
        {"serving": {"batching": {"maxDelay": "5ms"}}},
    ],
    ids=["scheduler", "steps", "batching"],
)
def test_what_only_changes_the_ensemble_builds_only_a_repository(cluster: FakeCluster, change: dict[str, Any]) -> None:
    serve(cluster)
    cluster.apply_pipeline(**change)
    assert build(cluster) == 1


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
    assert json.loads(arguments[arguments.index("--spec") + 1])["scheduler"] == scheduler


@pytest.mark.parametrize(
    "change",
    [
        {"targets": [{"name": "cpu", "replicas": 3}]},
        {"serving": {"env": [{"name": "A", "value": "b"}]}},
        {"serving": {"image": "triton:2"}},
    ],
    ids=["replicas", "env", "image"],
)
def test_what_only_changes_the_pods_builds_nothing(cluster: FakeCluster, change: dict[str, Any]) -> None:
    serve(cluster)
    cluster.apply_pipeline(**change)
    assert build(cluster) == 0


def test_two_pipelines_on_one_store_share_every_job(cluster: FakeCluster) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    cluster.apply_pipeline(storage={"claimName": "common"})
    cluster.apply_pipeline("twin", storage={"claimName": "common"})
    assert serve(cluster) == 10
    assert serve(cluster, "twin") == 0
    assert cluster.condition("Ready", "twin")["status"] == "True"
    cluster.delete_pipeline()
    settle(cluster, "twin")
    assert cluster.condition("Ready", "twin")["status"] == "True"
    assert len(cluster.names("Job")) == 10
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
    look(cluster, "twin")
    assert cluster.writes == []
    assert cluster.condition("Ready", "twin")["status"] == "True"


def test_traffic_moves_only_to_a_ready_revision_and_the_old_one_goes_afterwards(cluster: FakeCluster) -> None:
    serve(cluster)
    [old] = cluster.names("Deployment")
    cluster.apply_pipeline(serving={"image": "triton:2"})
    settle(cluster)
    [new] = [name for name in cluster.names("Deployment") if name != old]
    selected = cluster.objects["Service", "shapes"]["spec"]["selector"]
    assert old.endswith(selected[naming.REVISION])
    assert cluster.condition("Available")["status"] == "True"
    assert cluster.condition("RolloutComplete")["reason"] == "RollingOut"
    cluster.set_ready(new, 1)
    look(cluster)
    selected = cluster.objects["Service", "shapes"]["spec"]["selector"]
    assert new.endswith(selected[naming.REVISION])
    assert cluster.names("Deployment") == sorted([old, new])
    settle(cluster)
    assert cluster.names("Deployment") == [new]
    assert cluster.names("Service") == sorted(["shapes", "shapes-cpu", new])


def test_while_suspended_nothing_serves_and_no_job_starts(cluster: FakeCluster) -> None:
    serve(cluster)
    cluster.apply_pipeline(suspend=True, shapes={"batch": {"min": 1, "opt": 1, "max": 1}})
    settle(cluster)
    [deployment] = cluster.names("Deployment")
    assert cluster.objects["Deployment", deployment]["spec"]["replicas"] == 0
    assert cluster.unfinished_jobs() == []
    assert cluster.condition("Ready")["reason"] == "Suspended"
    cluster.set_ready(deployment, 0)
    cluster.apply_pipeline()
    serve(cluster)
    assert cluster.condition("Ready")["status"] == "True"


def test_a_target_that_is_dropped_goes_with_all_it_had(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[{"name": "cpu"}, {"name": "spare"}])
    serve(cluster)
    assert len(cluster.names("Deployment")) == 2
    cluster.apply_pipeline()
    settle(cluster)
    assert [name.rpartition("-")[0] for name in cluster.names("Deployment")] == ["shapes-cpu"]
    assert not [name for name in cluster.names("Service") if "spare" in name]


def test_a_foreign_object_is_never_overwritten(cluster: FakeCluster) -> None:
    mine = {"kind": "Service", "metadata": {"name": "shapes", "namespace": NAMESPACE}, "spec": {"mine": True}}
    asyncio.run(cluster.create(mine))
    build(cluster)
    assert cluster.condition("Accepted")["reason"] == "NameTaken"
    assert "Service shapes" in cluster.condition("Ready")["message"]
    assert cluster.objects["Service", "shapes"]["spec"] == {"mine": True}


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


def test_a_new_store_is_filled_anew(cluster: FakeCluster) -> None:
    serve(cluster)
    del cluster.objects["PersistentVolumeClaim", "shapes-store"]
    assert build(cluster) == 10


def test_deleting_a_pipeline_leaves_nothing(cluster: FakeCluster) -> None:
    serve(cluster)
    cluster.delete_pipeline()
    assert look(cluster) is None
    assert {kind for kind, _ in cluster.objects} <= {"Event"}


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
            look(cluster)
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
        self._left = deadly

    async def _request(self, method: str, path: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:  # noqa: ANN401
        if method != "GET":
            self._left -= 1
            if self._left == 0:
                raise UnavailableError("killed")
        return await super()._request(method, path, *args, **kwargs)


def test_a_new_builder_image_rebuilds_nothing(cluster: FakeCluster) -> None:
    serve(cluster)
    for key, item in cluster.objects.items():
        if key[0] == "Job":
            item["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.writes.clear()
    look(cluster, settings=Settings("builder:2", "triton:1", hub_endpoint="http://hub"))
    assert cluster.writes == []


def test_what_somebody_changed_by_hand_is_put_right(cluster: FakeCluster) -> None:
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.objects["Deployment", deployment]["spec"]["replicas"] = 7
    cluster.objects["Service", "shapes"]["spec"]["selector"] = {"other": "pods"}
    look(cluster)
    assert cluster.objects["Deployment", deployment]["spec"]["replicas"] == 1
    assert naming.REVISION in cluster.objects["Service", "shapes"]["spec"]["selector"]


def test_a_field_that_is_wanted_no_more_goes(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[{"name": "cpu"}])
    serve(cluster)
    labels = cluster.objects["Service", "shapes"]["metadata"]["labels"]
    labels["of-an-older-operator"] = "true"
    cluster.objects["Service", "shapes"]["metadata"]["annotations"][naming.APPLIED] = "other"
    look(cluster)
    assert "of-an-older-operator" not in cluster.objects["Service", "shapes"]["metadata"]["labels"]


def test_what_a_deleted_pipeline_of_the_same_name_left_is_not_taken_for_ours(cluster: FakeCluster) -> None:
    serve(cluster)
    # Deleted and created anew before Kubernetes collected anything.
    del cluster.objects[KIND, "shapes"]
    cluster.apply_pipeline()
    with pytest.raises(ConflictError, match="still going"):
        look(cluster)
    orphans = [key for key, item in cluster.objects.items() if item["metadata"].get("ownerReferences")]
    for key in orphans:
        del cluster.objects[key]
    assert serve(cluster) == 10
    assert cluster.condition("Ready")["status"] == "True"


def test_a_deployment_on_its_way_out_does_not_count(cluster: FakeCluster) -> None:
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.objects["Deployment", deployment]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    look(cluster)
    assert cluster.condition("Available")["status"] == "False"


def test_one_build_waiting_for_room_while_another_runs_is_no_trouble(cluster: FakeCluster) -> None:
    settle(cluster)
    cluster.succeed_jobs()
    settle(cluster)
    jobs = cluster.unfinished_jobs()
    full = {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "full"}
    cluster.add_pod(jobs[0], {"containerStatuses": [{"name": "build", "state": {"running": {}}}]})
    for job in jobs[1:]:
        cluster.add_pod(job, {"conditions": [full]})
    look(cluster)
    assert cluster.condition("EnginesReady")["reason"] == "Exporting"
    for key in [key for key in cluster.objects if key[0] == "Pod" and key[1].startswith(jobs[0]["metadata"]["name"])]:
        del cluster.objects[key]
    look(cluster)
    assert cluster.condition("EnginesReady")["reason"] == "Unschedulable"


def test_the_jobs_of_a_deleted_pipeline_are_joined_before_they_are_collected(cluster: FakeCluster) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "common", "namespace": NAMESPACE}, "spec": {}}
    asyncio.run(cluster.create(claim))
    cluster.apply_pipeline(storage={"claimName": "common"})
    serve(cluster)
    del cluster.objects[KIND, "shapes"]
    uid = cluster.apply_pipeline(storage={"claimName": "common"})["metadata"]["uid"]
    look(cluster)
    fetch = next(item for (kind, name), item in cluster.objects.items() if kind == "Job" and name.startswith("fetch"))
    assert uid in [owner["uid"] for owner in fetch["metadata"]["ownerReferences"]]
