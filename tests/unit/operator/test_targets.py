"""Targets with GPUs: where their engines are compiled, and what is said while there is no GPU."""

import asyncio
from typing import Any

import pytest

from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from diffusion_operator.views.pod import PodView
from diffusion_operator.views.pod_problem import pod_problem
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

SETTINGS = Settings(
    "builder:1", "triton:1", tensorrt_builder_image="builder-trt:1", tensorrt_serving_image="triton-trt:1"
)
L4: dict[str, Any] = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
LONG_AGO = "2026-01-01T00:00:00Z"
NONE = "0/3 nodes are available: "
WRONG_NODES = "2 node(s) didn't match Pod's node affinity/selector."
NO_ROOM = "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."


def settle(cluster: FakeCluster, settings: Settings = SETTINGS) -> None:
    for _ in range(10):
        cluster.writes.clear()
        asyncio.run(Reconciler(cluster, settings).reconcile(PipelineKey(NAMESPACE, "shapes")))
        if not cluster.writes:
            return
    raise AssertionError(f"still writing: {cluster.writes}")


def jobs(cluster: FakeCluster, stage: str) -> list[dict[str, Any]]:
    return [cluster.objects["Job", name] for name in cluster.names("Job") if name.startswith(stage)]


def compile_jobs(cluster: FakeCluster, targets: list[dict[str, Any]], **spec: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Compile Jobs once everything before them has succeeded."""
    cluster.apply_pipeline(targets=targets, **spec)
    for _ in range(2):
        settle(cluster)
        cluster.succeed_jobs()
    settle(cluster)
    return jobs(cluster, "compile")


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod_spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod_spec


def test_what_fails_to_compile_is_told_with_the_gpu_product() -> None:
    cluster = FakeCluster()
    job, *_ = compile_jobs(cluster, [L4, {"name": "cpu"}])
    cluster.end_job(job, 64, {"error": {"reason": "CompileFailed", "message": "no implementation"}})
    settle(cluster)
    sku = job["metadata"]["labels"]["diffusion-operator.io/target"]
    assert f"for {sku}: no implementation" in cluster.condition("EnginesReady")["message"]


def test_each_sku_gets_its_own_engines_on_its_own_nodes() -> None:
    cluster = FakeCluster()
    a10g = {"name": "a10g", "gpu": {"product": "NVIDIA-A10G"}}
    compiles = compile_jobs(cluster, [L4, a10g, {"name": "cpu"}])
    assert len(compiles) == 12
    for sku, image in (("NVIDIA-L4", "builder-trt:1"), ("NVIDIA-A10G", "builder-trt:1"), ("cpu", "builder:1")):
        own = [job for job in compiles if job["metadata"]["labels"]["diffusion-operator.io/target"] == sku]
        assert len(own) == 4
        for pod in map(pod_of, own):
            [container] = pod["containers"]
            assert container["image"] == image
            assert container["args"][container["args"].index("--sku") + 1] == sku
            runtime = container["args"][container["args"].index("--runtime") + 1]
            assert runtime == ("onnxruntime" if sku == "cpu" else "tensorrt")
            limits = container["resources"].get("limits", {})
            assert limits.get("nvidia.com/gpu") == (None if sku == "cpu" else "1")
            assert pod.get("nodeSelector", {}).get("nvidia.com/gpu.product") == (None if sku == "cpu" else sku)


def test_a_mig_slice_is_a_sku_of_its_own_on_nodes_of_the_whole_product() -> None:
    gpu = {"product": "NVIDIA-A100-SXM4-80GB", "resourceName": "nvidia.com/mig-1g.10gb"}
    compiles = compile_jobs(FakeCluster(), [{"name": "slice", "gpu": gpu}])
    for pod in map(pod_of, compiles):
        assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
        assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": "1"}
        assert "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb" in pod["containers"][0]["args"]


def test_tensorrt_settings_reach_the_builder_and_change_the_engine() -> None:
    cluster = FakeCluster()
    plain = {job["metadata"]["name"] for job in compile_jobs(cluster, [L4])}
    tuned = compile_jobs(cluster, [L4], engines={"optimizationLevel": 5, "workspace": 2048})
    assert plain.isdisjoint({job["metadata"]["name"] for job in tuned})
    for job in tuned:
        arguments = " ".join(pod_of(job)["containers"][0]["args"])
        assert "--optimization-level 5 --workspace 2048" in arguments


def test_another_tensorrt_image_compiles_anew() -> None:
    cluster = FakeCluster()
    before = {job["metadata"]["name"] for job in compile_jobs(cluster, [L4])}
    newer = Settings("builder:1", "triton:1", tensorrt_builder_image="trt:2", tensorrt_serving_image="triton-trt:2")
    cluster.succeed_jobs()
    settle(cluster, newer)
    after = {job["metadata"]["name"] for job in cluster.unfinished_jobs()}
    assert len(after) == 4
    assert after.isdisjoint(before)


def test_an_operator_without_tensorrt_says_which_setting_is_missing_and_starts_nothing() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=[L4])
    settle(cluster, Settings("builder:1", "triton:1"))
    assert cluster.condition("Accepted")["status"] == "False"
    assert "images.tensorrt.builder" in cluster.condition("Accepted")["message"]
    assert cluster.names("Job") == []


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "lastTransitionTime": LONG_AGO, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def test_a_sku_without_a_free_gpu_is_waited_for_while_the_other_target_serves() -> None:
    cluster = FakeCluster()
    compiles = compile_jobs(cluster, [L4, {"name": "cpu"}])
    for job in compiles:
        if job["metadata"]["labels"]["diffusion-operator.io/target"] == "cpu":
            cluster.end_job(job, 0, {"digest": "c" * 64})
            continue
        message = f"{NONE}2 Insufficient nvidia.com/gpu, 1 node(s) didn't match Pod's node affinity/selector. {NO_ROOM}"
        pod = cluster.add_pod(job, unscheduled(message))
        pod["spec"] = pod_of(job)
    settle(cluster)
    state = cluster.condition("EnginesReady")
    assert (state["status"], state["reason"]) == ("False", "WaitingForGPU")
    assert f"Since {LONG_AGO}: 2 nodes have NVIDIA-L4, 0 free" in state["message"]
    [assemble] = jobs(cluster, "assemble")
    cluster.end_job(assemble, 0, {"digest": "d" * 64, "ensembles": ["generate_20_pipeline"]})
    settle(cluster)
    [parity] = jobs(cluster, "parity")
    cluster.end_job(parity, 0, {"digest": "e" * 64})
    settle(cluster)
    [deployment] = cluster.names("Deployment")
    cluster.set_ready(deployment, 1)
    settle(cluster)
    served = {target["name"]: target["readyReplicas"] for target in cluster.pipeline()["status"]["targets"]}
    assert served == {"l4": 0, "cpu": 1}


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        (f"{NONE}1 Insufficient nvidia.com/gpu, {WRONG_NODES}", "WaitingForGPU", "1 node has NVIDIA-L4, 0 free"),
        (f"{NONE}{WRONG_NODES} {NO_ROOM}", "WaitingForGPU", "0 nodes have NVIDIA-L4"),
        ("no nodes available to schedule pods", "WaitingForGPU", "0 nodes have NVIDIA-L4"),
        (f"{NONE}1 Insufficient cpu, {WRONG_NODES}", "Unschedulable", "Insufficient cpu"),
        (f"{NONE}1 node(s) had untolerated taint(s), {WRONG_NODES}", "Unschedulable", "untolerated taint"),
        (f"{NONE}pod has unbound immediate PersistentVolumeClaims. {NO_ROOM}", "Unschedulable", "unbound immediate"),
    ],
)
def test_the_scheduler_s_words_are_told_apart(message: str, reason: str, words: str) -> None:
    [job, *_] = compile_jobs(FakeCluster(), [L4])
    problem = pod_problem(
        PodView.parse({"metadata": {"name": "a"}, "spec": pod_of(job), "status": unscheduled(message)})
    )
    assert problem is not None
    assert problem.reason == reason
    assert words in problem.message


def test_a_pod_without_a_gpu_never_waits_for_one() -> None:
    message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    problem = pod_problem(
        PodView.parse({"metadata": {"name": "a"}, "spec": {"containers": [{}]}, "status": unscheduled(message)})
    )
    assert problem is not None
    assert problem.reason == "Unschedulable"


def test_a_claim_for_one_node_is_named_when_a_volume_cannot_be_reached() -> None:
    cluster = FakeCluster()
    compiles = compile_jobs(cluster, [{"name": "cpu"}], storage={"size": "2Gi", "accessModes": ["ReadWriteOnce"]})
    message = "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
    for job in compiles:
        cluster.add_pod(job, unscheduled(message))
    settle(cluster)
    state = cluster.condition("EnginesReady")
    assert state["reason"] == "StorageNotShared"
    assert "ReadWriteMany" in state["message"]


def test_two_samplers_of_one_name_are_refused() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(schedulers=[{"type": "DDIM"}, {"type": "DDIM", "timestepSpacing": "trailing"}])
    settle(cluster)
    assert "give each entry another name" in cluster.condition("Accepted")["message"]
    assert cluster.names("Job") == []
