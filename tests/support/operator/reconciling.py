"""Whole passes against an API server in memory."""

import asyncio

from diffusion_operator.kube_client import KubeClient
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

SETTINGS = Settings(
    builder_image="builder:1",
    serving_image="triton:1",
    tensorrt_builder_image="builder-trt:1",
    tensorrt_serving_image="triton-trt:1",
    gateway_image="gateway:1",
    hub_endpoint="http://hub",
)
OTHER_REVISION = "f" * 40


def reconcile(cluster: KubeClient, name: str = "shapes", settings: Settings = SETTINGS) -> float | None:
    return asyncio.run(Reconciler(cluster, settings).reconcile(PipelineKey(NAMESPACE, name)))


def settle(cluster: FakeCluster, name: str = "shapes") -> None:
    """Passes until nothing is written any more."""
    for _ in range(10):
        cluster.writes.clear()
        reconcile(cluster, name)
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
