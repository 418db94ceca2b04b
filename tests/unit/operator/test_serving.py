"""What serves: traffic, pods, and what is theirs."""

import asyncio
from typing import Any

import pytest

from diffusion_operator import naming
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import build, reconcile, serve, settle


@pytest.fixture
def cluster() -> FakeCluster:
    fake = FakeCluster()
    fake.apply_pipeline()
    return fake


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
    reconcile(cluster)
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
    foreign_service = {
        "kind": "Service",
        "metadata": {"name": "shapes", "namespace": NAMESPACE},
        "spec": {"mine": True},
    }
    asyncio.run(cluster.create(foreign_service))
    build(cluster)
    assert cluster.condition("Accepted")["reason"] == "NameConflict"
    assert "Service shapes" in cluster.condition("Ready")["message"]
    assert cluster.objects["Service", "shapes"]["spec"] == {"mine": True}


def test_what_somebody_changed_by_hand_is_put_right(cluster: FakeCluster) -> None:
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.objects["Deployment", deployment]["spec"]["replicas"] = 7
    cluster.objects["Service", "shapes"]["spec"]["selector"] = {"other": "pods"}
    reconcile(cluster)
    assert cluster.objects["Deployment", deployment]["spec"]["replicas"] == 1
    assert naming.REVISION in cluster.objects["Service", "shapes"]["spec"]["selector"]


def test_a_field_that_is_wanted_no_more_goes(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[{"name": "cpu"}])
    serve(cluster)
    labels = cluster.objects["Service", "shapes"]["metadata"]["labels"]
    labels["of-an-older-operator"] = "true"
    cluster.objects["Service", "shapes"]["metadata"]["annotations"][naming.APPLIED] = "other"
    reconcile(cluster)
    assert "of-an-older-operator" not in cluster.objects["Service", "shapes"]["metadata"]["labels"]


def test_a_deployment_on_its_way_out_does_not_count(cluster: FakeCluster) -> None:
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.objects["Deployment", deployment]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    reconcile(cluster)
    assert cluster.condition("Available")["status"] == "False"


AUTOMATIC = {"name": "cpu", "autoscaling": {"minReplicas": 2, "maxReplicas": 6}}
KEDA = {"serverAddress": "http://prometheus:9090", "activationQuery": "sum(rate(gateway_requests[1m]))"}
TO_ZERO = {"name": "cpu", "autoscaling": {"minReplicas": 0, "maxReplicas": 6, "provider": "keda", "keda": KEDA}}


def scale(cluster: FakeCluster, deployment: str, replicas: int) -> None:
    """As an autoscaler does; a Deployment that was complete once says so without pods, too."""
    cluster.objects["Deployment", deployment]["spec"]["replicas"] = replicas
    cluster.objects["Deployment", deployment]["metadata"]["generation"] += 1
    proven = cluster.objects["Deployment", deployment]["status"]["conditions"]
    cluster.set_ready(deployment, replicas)
    cluster.objects["Deployment", deployment]["status"]["conditions"] = proven


def replicas(cluster: FakeCluster, deployment: str) -> int:
    return int(cluster.objects["Deployment", deployment]["spec"]["replicas"])


def test_every_target_has_a_budget_that_goes_with_it(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[{"name": "cpu"}, {"name": "spare"}])
    serve(cluster)
    assert cluster.names("PodDisruptionBudget") == ["shapes-cpu", "shapes-spare"]
    cluster.apply_pipeline()
    settle(cluster)
    assert cluster.names("PodDisruptionBudget") == ["shapes-cpu"]


def test_what_the_autoscaler_decides_stays_and_the_next_revision_starts_with_as_many(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[AUTOMATIC])
    serve(cluster)
    [old] = cluster.names("Deployment")
    assert replicas(cluster, old) == 2
    scale(cluster, old, 5)
    settle(cluster)
    assert replicas(cluster, old) == 5
    cluster.apply_pipeline(targets=[AUTOMATIC], serving={"image": "triton:2"})
    settle(cluster)
    [new] = [name for name in cluster.names("Deployment") if name != old]
    assert replicas(cluster, new) == 5
    assert scaled(cluster) == old
    cluster.set_ready(new, 4)
    settle(cluster)
    assert scaled(cluster) == old
    cluster.set_ready(new, 5)
    settle(cluster)
    assert scaled(cluster) == new
    assert cluster.names("Deployment") == [new]


def scaled(cluster: FakeCluster) -> str:
    """Deployment that the autoscaler is told to scale."""
    return str(cluster.objects["HorizontalPodAutoscaler", "shapes-cpu"]["spec"]["scaleTargetRef"]["name"])


def test_handing_the_number_of_pods_over_and_back_never_starts_from_one(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[{"name": "cpu", "replicas": 4}])
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.apply_pipeline(targets=[AUTOMATIC])
    settle(cluster)
    assert replicas(cluster, deployment) == 4
    scale(cluster, deployment, 6)
    cluster.apply_pipeline(targets=[{"name": "cpu", "replicas": 3}])
    settle(cluster)
    assert replicas(cluster, deployment) == 3
    assert cluster.names("HorizontalPodAutoscaler") == []


def test_an_autoscaler_does_not_wake_a_suspended_pipeline(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[AUTOMATIC])
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.apply_pipeline(targets=[AUTOMATIC], suspend=True)
    settle(cluster)
    assert (replicas(cluster, deployment), cluster.names("HorizontalPodAutoscaler")) == (0, [])
    cluster.apply_pipeline(targets=[AUTOMATIC])
    settle(cluster)
    # A HorizontalPodAutoscaler leaves a Deployment without pods alone.
    assert (replicas(cluster, deployment), cluster.names("HorizontalPodAutoscaler")) == (2, ["shapes-cpu"])


def test_scaled_to_zero_is_ready_and_stays_at_zero(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(targets=[TO_ZERO])
    serve(cluster)
    [deployment] = cluster.names("Deployment")
    assert replicas(cluster, deployment) == 1
    scale(cluster, deployment, 0)
    settle(cluster)
    assert replicas(cluster, deployment) == 0
    assert cluster.condition("Ready")["status"] == "True"
    assert "zero" in cluster.condition("Available")["message"]
    cluster.apply_pipeline(targets=[TO_ZERO], serving={"image": "triton:2"})
    settle(cluster)
    [new] = [name for name in cluster.names("Deployment") if name != deployment]
    assert (replicas(cluster, deployment), replicas(cluster, new)) == (0, 1)


def test_a_cluster_without_keda_is_named_and_everything_else_goes_on(cluster: FakeCluster) -> None:
    cluster.unknown.add("ScaledObject")
    cluster.apply_pipeline(targets=[TO_ZERO])
    serve(cluster)
    assert cluster.condition("Accepted")["reason"] == "ObjectRejected"
    assert "KEDA" in cluster.condition("Accepted")["message"]
    assert cluster.condition("Available")["status"] == "True"
    cluster.apply_pipeline(targets=[AUTOMATIC])
    settle(cluster)
    assert cluster.condition("Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("changed", "reason"), [("00:00:01", "Starting"), ("00:00:40", "NotReady")], ids=["not ready yet", "not any more"]
)
def test_a_server_that_has_just_started_is_told_apart_from_one_that_is_not_ready_any_more(
    cluster: FakeCluster, changed: str, reason: str
) -> None:
    serve(cluster)
    [name] = cluster.names("Deployment")
    template = cluster.objects["Deployment", name]["spec"]["template"]
    head = {"name": f"{name}-x", "namespace": NAMESPACE, "labels": template["metadata"]["labels"]}
    asyncio.run(cluster.create({"kind": "Pod", "metadata": head, "spec": template["spec"]}))
    running = {"name": "triton", "started": True, "ready": False}
    running["state"] = {"running": {"startedAt": "2026-01-01T00:00:30Z"}}
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": f"2026-01-01T{changed}Z"}
    cluster.objects["Pod", f"{name}-x"]["status"] = {"containerStatuses": [running], "conditions": [unready]}
    cluster.set_ready(name, 0)
    reconcile(cluster)
    assert cluster.condition("Available")["reason"] == reason
