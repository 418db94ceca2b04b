"""What Prometheus is told."""

import asyncio
import urllib.error
import urllib.request

from diffusion_operator.handlers.endpoints import HealthChecks
from diffusion_operator.handlers.endpoints import serve as endpoints
from diffusion_operator.metrics import Metrics, Readiness
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import SETTINGS, settle
from tools.devcluster.ports import free_ports


def value(metrics: Metrics, series: str) -> float:
    """The sample of a series; 0 where there is none."""
    lines = metrics.render().decode().splitlines()
    samples = [line for line in lines if line.startswith(f"diffusion_operator_{series} ")]
    return float(samples[0].rpartition(" ")[2]) if samples else 0.0


def live(cluster: FakeCluster, metrics: Metrics) -> None:
    reconciler = Reconciler(cluster, SETTINGS, metrics)
    for _ in range(12):
        asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes")))
        cluster.succeed_jobs()
        for deployment in cluster.names("Deployment"):
            cluster.set_ready(deployment, 1)


def test_every_build_is_counted_once_with_what_it_made() -> None:
    cluster, metrics = FakeCluster(), Metrics()
    cluster.apply_pipeline()
    live(cluster, metrics)
    series = 'build_duration_seconds_count{component="denoiser",sku="cpu",stage="compile"}'
    assert value(metrics, series) == 1
    assert value(metrics, series.replace("count", "sum")) == 1.5
    assert value(metrics, 'build_duration_seconds_count{component="",sku="",stage="fetch"}') == 1
    live(cluster, metrics)
    assert value(metrics, series) == 1


def test_what_the_store_answers_is_a_hit_and_a_failure_is_neither() -> None:
    metrics = Metrics()
    labels = ("compile", "denoiser", "NVIDIA-L4")
    metrics.observe_build(labels, {"digest": "d", "cached": True, "seconds": 0.2})
    metrics.observe_build(labels, {"error": {"reason": "CompileFailed"}})
    tail = '{component="denoiser",sku="NVIDIA-L4",stage="compile"}'
    assert value(metrics, f"build_cache_hits_total{tail}") == 1
    assert value(metrics, f"build_failures_total{tail}") == 1
    assert value(metrics, f"build_duration_seconds_count{tail}") == 0


def test_the_fleet_is_counted_and_a_shared_job_once() -> None:
    metrics = Metrics()
    metrics.record_pipeline("a/one", ready=Readiness("True", "Ready"), jobs=[("a/fetch-1", "fetch", "Succeeded")])
    jobs = [("a/fetch-1", "fetch", "Succeeded"), ("a/export-1", "export", "Running")]
    metrics.record_pipeline("a/two", ready=Readiness("False", "Exporting"), jobs=jobs)
    assert value(metrics, 'jobs{stage="fetch",state="Succeeded"}') == 1
    assert value(metrics, 'pipelines{ready="True"}') == 1
    metrics.remove_pipeline("a/two")
    assert value(metrics, 'jobs{stage="export",state="Running"}') == 0


def readiness(metrics: Metrics) -> dict[str, float]:
    """Labels to value of the series that name pipelines."""
    lines = metrics.render().decode().splitlines()
    samples = [line.removeprefix("diffusion_operator_pipeline_ready").rpartition(" ") for line in lines]
    return {labels: float(number) for labels, _, number in samples if labels.startswith("{")}


def test_every_pipeline_has_a_series_of_its_name_with_the_reason_of_now_and_none_when_it_is_gone() -> None:
    cluster, metrics = FakeCluster(), Metrics()
    cluster.apply_pipeline()
    live(cluster, metrics)
    labels = f'pipeline="shapes",pipeline_namespace="{NAMESPACE}",reason='
    assert readiness(metrics) == {f'{{{labels}"Ready",suspended="false"}}': 1.0}
    cluster.apply_pipeline(suspend=True)
    live(cluster, metrics)
    assert readiness(metrics) == {f'{{{labels}"Suspended",suspended="true"}}': 0.0}
    metrics.remove_pipeline(f"{NAMESPACE}/shapes")
    assert readiness(metrics) == {}


def test_a_suspended_pipeline_is_one_also_where_its_reason_is_a_failed_build() -> None:
    cluster, metrics = FakeCluster(), Metrics()
    cluster.apply_pipeline()
    settle(cluster)
    [job] = cluster.unfinished_jobs()
    cluster.end_job(job, 64, {"error": {"reason": "PickleOnly", "message": "No."}})
    cluster.apply_pipeline(suspend=True)
    asyncio.run(Reconciler(cluster, SETTINGS, metrics).reconcile(PipelineKey(NAMESPACE, "shapes")))
    [labels] = readiness(metrics)
    assert 'reason="PickleOnly",suspended="true"' in labels


def test_health_and_readiness_are_different_questions() -> None:
    health, metrics = free_ports(2)
    settings = Settings("b", "s", health_port=health, metrics_port=metrics)
    states = {"alive": True, "ready": False}

    def ask(port: int, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    async def scene() -> None:
        answers = HealthChecks(lambda: states["alive"], lambda: states["ready"], Metrics().render)
        async with endpoints(settings, answers):
            assert await asyncio.to_thread(ask, health, "/healthz") == 200
            assert await asyncio.to_thread(ask, health, "/readyz") == 503
            states["ready"] = True
            assert await asyncio.to_thread(ask, health, "/readyz") == 200
            states["alive"] = False
            assert await asyncio.to_thread(ask, health, "/healthz") == 503
            assert await asyncio.to_thread(ask, metrics, "/metrics") == 200

    asyncio.run(scene())
