"""One GPU that a server holds: whole passes while the next revision is built and started."""

import json
from typing import Any

import pytest

from diffusion_operator import naming
from tests.support.operator.canaries import events, replicas, stable
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import OTHER_REVISION, reconcile, serve, settle

L4: dict[str, Any] = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
LONG_AGO = "2026-01-01T00:00:00Z"
IN_USE = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available"
NO_NODE = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1"
ROLLOUT = {"strategy": "RollingUpdate", "surge": 0}
OTHER_MODEL = {"source": {"huggingFace": {"repo": "demo/shapes", "revision": OTHER_REVISION}}}


def change(cluster: FakeCluster, rollout: dict[str, Any], **spec: Any) -> None:  # noqa: ANN401 - any field
    status = cluster.pipeline().get("status", {})
    cluster.apply_pipeline(targets=[L4], rollout=rollout, **spec)["status"] = status


def unschedulable(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "lastTransitionTime": LONG_AGO, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def serving_cluster(rollout: dict[str, Any]) -> tuple[FakeCluster, str]:
    """A pipeline that serves, and its revision."""
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=[L4], rollout=rollout)
    serve(cluster)
    return cluster, stable(cluster, "l4")


def wait_for_gpu(cluster: FakeCluster, message: str) -> None:
    """Bring the build to its compile Jobs, whose pods then wait."""
    settle(cluster)
    while not any(job["metadata"]["name"].startswith("compile") for job in cluster.unfinished_jobs()):
        assert cluster.succeed_jobs() > 0
        settle(cluster)
    for job in cluster.unfinished_jobs():
        pod = cluster.add_pod(job, unschedulable(message))
        pod["spec"] = job["spec"]["template"]["spec"]
    settle(cluster)


def settle_pods(cluster: FakeCluster) -> None:
    for name in cluster.names("Deployment"):
        cluster.set_ready(name, cluster.objects["Deployment", name]["spec"]["replicas"])
    settle(cluster)


def test_the_server_makes_room_for_the_build_and_the_next_revision_serves() -> None:
    cluster, old = serving_cluster(ROLLOUT)
    change(cluster, ROLLOUT, model=OTHER_MODEL)
    wait_for_gpu(cluster, IN_USE)
    assert replicas(cluster, "l4") == {old: 0}
    settle_pods(cluster)
    state = cluster.condition("Available")
    assert (state["status"], state["reason"]) == ("False", "MakingRoom")
    assert f"so revision {old} is scaled to zero meanwhile (rollout.surge: 0)" in state["message"]
    assert any("no GPU is free for the build of the next revision" in text for text in events(cluster))
    while cluster.succeed_jobs():
        settle(cluster)
    [new] = replicas(cluster, "l4").keys() - {old}
    assert replicas(cluster, "l4") == {old: 0, new: 1}
    settle_pods(cluster)
    settle_pods(cluster)
    assert stable(cluster, "l4") == new
    assert replicas(cluster, "l4") == {old: 0, new: 1}
    assert cluster.condition("Ready")["status"] == "True"


def test_a_build_that_fails_brings_the_server_back() -> None:
    cluster, old = serving_cluster(ROLLOUT)
    change(cluster, ROLLOUT, model=OTHER_MODEL)
    wait_for_gpu(cluster, IN_USE)
    job, *_ = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "CompileFailed", "message": "no implementation"}})
    settle(cluster)
    assert replicas(cluster, "l4") == {old: 1}
    settle_pods(cluster)
    assert cluster.condition("Available")["status"] == "True"
    assert cluster.condition("EnginesReady")["reason"] == "CompileFailed"
    assert any("is scaled up again" in text for text in events(cluster))


def test_a_revision_that_is_never_ready_is_rejected_and_the_server_comes_back() -> None:
    cluster, old = serving_cluster(ROLLOUT)
    change(cluster, ROLLOUT, model=OTHER_MODEL)
    wait_for_gpu(cluster, IN_USE)
    while cluster.succeed_jobs():
        settle(cluster)
    [new] = replicas(cluster, "l4").keys() - {old}
    cluster.set_ready(f"shapes-l4-{new}", 0)
    settle(cluster)
    notes = cluster.objects["Deployment", f"shapes-l4-{new}"]["metadata"]["annotations"]
    progress = json.loads(notes[naming.ROLLOUT])
    assert progress["phase"] == "Promoting"
    notes[naming.ROLLOUT] = json.dumps(progress | {"since": LONG_AGO})
    settle(cluster)
    assert replicas(cluster, "l4") == {old: 1, new: 0}
    settle_pods(cluster)
    assert stable(cluster, "l4") == old
    assert cluster.condition("Available")["status"] == "True"
    state = cluster.condition("RolloutComplete")
    assert state["reason"] == "CanaryRejected"
    assert "not ready within 600 seconds (progressDeadline)" in state["message"]
    # The spec asks for it still, and nothing is taken away for it again.
    settle_pods(cluster)
    assert replicas(cluster, "l4") == {old: 1, new: 0}


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        ({"strategy": "RollingUpdate"}, IN_USE),
        (ROLLOUT, NO_NODE),
    ],
    ids=["surge 1", "a GPU that no node has"],
)
def test_nothing_is_taken_away_in_vain(rollout: dict[str, Any], message: str) -> None:
    cluster, old = serving_cluster(rollout)
    change(cluster, rollout, model=OTHER_MODEL)
    wait_for_gpu(cluster, message)
    assert replicas(cluster, "l4") == {old: 1}
    assert cluster.condition("Available")["status"] == "True"


def test_a_change_without_a_build_makes_room_for_its_pods() -> None:
    cluster, old = serving_cluster(ROLLOUT)
    change(cluster, ROLLOUT, serving={"image": "triton-trt:2"})
    settle(cluster)
    [new] = replicas(cluster, "l4").keys() - {old}
    assert replicas(cluster, "l4") == {old: 1, new: 1}
    template = cluster.objects["Deployment", f"shapes-l4-{new}"]["spec"]["template"]
    head = {"name": "waiting", "namespace": "studio", "uid": "uid-waiting", "labels": template["metadata"]["labels"]}
    pod = {"kind": "Pod", "metadata": head, "spec": template["spec"], "status": unschedulable(IN_USE)}
    cluster.objects["Pod", "waiting"] = pod
    settle(cluster)
    assert replicas(cluster, "l4") == {old: 0, new: 1}
    assert any(f"no GPU is free for revision {new}" in text for text in events(cluster))
    del cluster.objects["Pod", "waiting"]
    # No event says that the deadline is over.
    delay = reconcile(cluster)
    assert delay is not None
    assert delay <= 60
