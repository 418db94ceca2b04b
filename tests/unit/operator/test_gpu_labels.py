"""Nodes whose GPU is named by another label than GPU feature discovery's: placement, observation and messages."""

from dataclasses import replace
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.errors import BadInputError
from diffusion_operator.settings import GpuNodeLabel, Settings, from_environment
from tests.support.operator.fake_cluster import FakeCluster
from tests.support.operator.reconciling import SETTINGS, reconcile

GKE, KARPENTER = "cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name"
ON_GKE = replace(SETTINGS, gpu_label=GpuNodeLabel(GKE, (("NVIDIA-L4", "nvidia-l4"),)))
L4 = {"product": "NVIDIA-L4"}
CASES: dict[str, tuple[Settings, dict[str, Any], dict[str, str]]] = {
    "nothing set": (SETTINGS, L4, {"nvidia.com/gpu.product": "NVIDIA-L4"}),
    "the chart": (ON_GKE, L4, {GKE: "nvidia-l4"}),
    "a product that the chart does not list": (ON_GKE, {"product": "nvidia-b200"}, {GKE: "nvidia-b200"}),
    "the target": (SETTINGS, {**L4, "productLabel": KARPENTER, "productLabelValue": "l4"}, {KARPENTER: "l4"}),
    "the target's label, the product as value": (ON_GKE, {**L4, "productLabel": "gpu"}, {"gpu": "NVIDIA-L4"}),
    "the target's value": (ON_GKE, {**L4, "productLabelValue": "nvidia-l4-vws"}, {GKE: "nvidia-l4-vws"}),
}


def cluster_with(gpu: dict[str, Any], settings: Settings) -> FakeCluster:
    """A pipeline that is built as far as it goes, with a Deployment."""
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=[{"name": "l4", "gpu": gpu}])
    for _ in range(10):
        reconcile(cluster, settings=settings)
        for name in cluster.names("Job"):
            cluster.objects["Job", name]["spec"].pop("suspend", None)
        cluster.succeed_jobs()
    return cluster


@pytest.mark.parametrize("case", CASES)
def test_compile_jobs_and_servers_choose_nodes_by_the_label_that_these_have(case: str) -> None:
    settings, gpu, selector = CASES[case]
    cluster = cluster_with(gpu, settings)
    [deployment] = cluster.names("Deployment")
    assert cluster.objects["Deployment", deployment]["spec"]["template"]["spec"]["nodeSelector"] == selector
    jobs = [cluster.objects["Job", name] for name in cluster.names("Job") if name.startswith("compile-")]
    assert len(jobs) == 4
    for job in jobs:
        assert job["spec"]["template"]["spec"]["nodeSelector"] == selector
        # Engines are those of the product, whatever the nodes' labels are: nothing is compiled twice.
        assert job["metadata"]["labels"][naming.TARGET] == gpu["product"]


def test_jobs_have_the_same_names_whatever_the_label_is() -> None:
    plain, labelled = cluster_with(L4, SETTINGS), cluster_with(L4, ON_GKE)
    assert plain.names("Job") == labelled.names("Job")


@pytest.mark.parametrize("case", CASES)
def test_waiting_for_a_gpu_names_the_label(case: str) -> None:
    settings, gpu, selector = CASES[case]
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=[{"name": "l4", "gpu": gpu}])
    for _ in range(6):
        reconcile(cluster, settings=settings)
        for job in cluster.unfinished_jobs():
            if job["metadata"]["labels"][naming.STAGE] != "compile":
                cluster.end_job(job, 0, {"digest": "d" * 64})
    [compile_job] = [
        cluster.objects["Job", name] for name in cluster.names("Job") if name.startswith("compile-denoiser")
    ]
    compile_job["spec"].pop("suspend", None)
    message = "0/9 nodes are available: 9 node(s) didn't match Pod's node affinity/selector."
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    pod = cluster.add_pod(compile_job, {"phase": "Pending", "conditions": [condition]})
    pod["spec"] = compile_job["spec"]["template"]["spec"]
    reconcile(cluster, settings=settings)
    state = cluster.condition("EnginesReady")
    [(key, value)] = selector.items()
    assert state["reason"] == "WaitingForGPU"
    assert f"0 nodes have {value} (node label {key}={value}), 0 free" in state["message"]
    assert "gpu.productLabel" in state["message"]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("süd", ""),
        ("a b", ""),
        (GKE, "not json"),
        (GKE, '["x"]'),
        (GKE, '{"NVIDIA-L4": 4}'),
        (GKE, '{"NVIDIA-L4": "ü"}'),
    ],
)
def test_the_operator_does_not_start_with_a_label_that_no_node_can_have(key: str, values: str) -> None:
    environment = {
        "DIFFUSION_OPERATOR_BUILDER_IMAGE": "b",
        "DIFFUSION_OPERATOR_SERVING_IMAGE": "s",
        "DIFFUSION_OPERATOR_GPU_PRODUCT_LABEL": key,
        "DIFFUSION_OPERATOR_GPU_PRODUCT_LABEL_VALUES": values,
    }
    with pytest.raises(BadInputError, match=r"gpu.productLabel and gpu.productLabelValues"):
        from_environment(environment)
    environment |= {
        "DIFFUSION_OPERATOR_GPU_PRODUCT_LABEL": GKE,
        "DIFFUSION_OPERATOR_GPU_PRODUCT_LABEL_VALUES": '{"NVIDIA-L4":"nvidia-l4"}',
    }
    assert from_environment(environment).gpu_label == ON_GKE.gpu_label
