"""A GPU that is too small for what it is to serve is told, once, and nothing is held back for it."""

import pytest

from diffusion_operator.plan.memory import GIB, memory_bytes, memory_warning
from tests.support.operator.fake_cluster import FakeCluster, JsonObject, result_of
from tests.support.operator.reconciling import settle

SLICED = {"product": "NVIDIA-A100-SXM4-80GB", "resourceName": "nvidia.com/mig-1g.10gb"}


@pytest.mark.parametrize(
    ("sku", "gib"),
    [
        ("NVIDIA-L4", 22.5),
        ("Tesla-T4-SHARED", 15.0),
        ("NVIDIA-A100-SXM4-80GB", 76.0),
        ("NVIDIA-A100-80GB-PCIe", 76.0),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9.5),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.20gb.me", 19.0),
        ("NVIDIA-A100-SXM4-80GB-MIG-mixed", None),
        ("NVIDIA-X1", None),
        ("cpu", None),
    ],
)
def test_the_memory_of_a_product_or_slice_is_known_or_nothing_is_said(sku: str, gib: float | None) -> None:
    memory = memory_bytes(sku)
    assert (memory and round(memory / GIB, 1)) == gib
    assert (memory_warning(sku, 10**15) is None) == (gib is None)
    assert memory_warning(sku, 10**6) is None
    assert memory_warning(sku, None) is None


def served(needed: float, gpu: JsonObject) -> FakeCluster:
    """A pipeline on one GPU whose repository is built, with this estimate in GiB."""
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=[{"name": "gpu", "gpu": gpu}])
    settle(cluster)
    while jobs := cluster.unfinished_jobs():
        for job in jobs:
            cluster.end_job(job, 0, result_of(job) | {"estimatedGPUMemoryBytes": int(needed * GIB)})
        settle(cluster)
    return cluster


def memory_warnings(cluster: FakeCluster) -> list[str]:
    events = [cluster.objects["Event", name] for name in cluster.names("Event")]
    return [event["message"] for event in events if event["reason"] == "InsufficientGPUMemory"]


def test_a_slice_that_is_too_small_is_told_once_and_tried_all_the_same() -> None:
    cluster = served(12.0, SLICED)
    [target] = cluster.pipeline()["status"]["targets"]
    assert "about 12.0 GiB" in target["warning"]
    assert "MIG-1g.10gb has 9.5" in target["warning"]
    assert target["estimatedGPUMemoryBytes"] > target["gpuMemoryBytes"]
    assert memory_warnings(cluster) == [target["warning"]]
    assert cluster.names("Deployment")
    cluster.pipeline()["status"].pop("targets")
    settle(cluster)
    assert len(memory_warnings(cluster)) == 1


def test_what_fits_is_not_warned_about() -> None:
    cluster = served(12.0, {"product": "NVIDIA-L4"})
    [target] = cluster.pipeline()["status"]["targets"]
    assert "warning" not in target
    assert memory_warnings(cluster) == []
