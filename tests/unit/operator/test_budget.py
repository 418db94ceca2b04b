"""At most so many compile Jobs per SKU at once, fair between pipelines, and visible while they wait."""

import asyncio
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.plan.build_steps import admissible_jobs
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from diffusion_operator.views.job import JobView
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

L4: dict[str, Any] = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}


def settings(limit: int) -> Settings:
    return Settings(
        "builder:1",
        "triton:1",
        tensorrt_builder_image="builder-trt:1",
        tensorrt_serving_image="triton-trt:1",
        compile_jobs_per_sku=limit,
    )


def settle(cluster: FakeCluster, name: str, limit: int) -> None:
    for _ in range(10):
        cluster.writes.clear()
        asyncio.run(Reconciler(cluster, settings(limit)).reconcile(PipelineKey(NAMESPACE, name)))
        if not cluster.writes:
            return
    raise AssertionError(f"still writing: {cluster.writes}")


def job(name: str, pipeline: str, created: int, *, waits: bool, ended: bool = False) -> JobView:
    conditions = [{"type": "Complete", "status": "True"}] if ended else []
    head = {"name": name, "namespace": "a", "labels": {naming.PIPELINE: pipeline}}
    head["creationTimestamp"] = f"2026-01-01T00:00:{created:02d}Z"
    return JobView.parse({"metadata": head, "spec": {"suspend": waits}, "status": {"conditions": conditions}})


def names(jobs: list[JobView]) -> list[str]:
    return [job.name for job in jobs]


def test_the_one_that_waits_longest_comes_first() -> None:
    jobs = [job("late", "p", 3, waits=True), job("early", "p", 1, waits=True), job("middle", "p", 2, waits=True)]
    assert names(admissible_jobs(jobs, 2)) == ["early", "middle"]


def test_a_large_pipeline_does_not_keep_a_small_one_waiting() -> None:
    large = [job(f"large-{number}", "large", 1, waits=True) for number in range(5)]
    assert names(admissible_jobs([*large, job("small", "small", 9, waits=True)], 2)) == ["large-0", "small"]
    running = job("large-r", "large", 0, waits=False)
    assert names(admissible_jobs([running, *large, job("small", "small", 9, waits=True)], 2)) == ["small"]


def test_what_runs_takes_a_place_and_what_ended_does_not() -> None:
    waiting = [job("next", "p", 5, waits=True)]
    assert admissible_jobs([job("runs", "p", 1, waits=False), *waiting], 1) == []
    assert names(admissible_jobs([job("ended", "p", 1, waits=False, ended=True), *waiting], 1)) == ["next"]


def prepared(*pipelines: str, limit: int) -> FakeCluster:
    """Pipelines on one GPU product, each with a store of its own, that have come to their compile Jobs."""
    cluster = FakeCluster()
    for name in pipelines:
        cluster.apply_pipeline(name, targets=[L4])
        for _ in range(2):
            settle(cluster, name, limit)
            for job in cluster.unfinished_jobs():
                if not job["metadata"]["name"].startswith("compile"):
                    cluster.end_job(job, 0, result(job))
        settle(cluster, name, limit)
    return cluster


def result(job: dict[str, Any]) -> dict[str, Any]:
    name = job["metadata"]["name"]
    return {"digest": (name.encode().hex() * 4)[:64], "subfolders": {}}


def test_no_more_run_than_the_operator_allows_and_the_others_say_that_they_wait() -> None:
    cluster = prepared("one", limit=2)
    assert len(cluster.unfinished_jobs()) == 2
    assert len([name for name in cluster.names("Job") if name.startswith("compile")]) == 4
    skus = [part["skus"]["NVIDIA-L4"] for part in cluster.pipeline("one")["status"]["components"].values()]
    assert sorted(sku["state"] for sku in skus) == ["Pending", "Pending", "Queued", "Queued"]


def test_a_place_that_becomes_free_goes_to_another_pipeline_in_the_same_pass() -> None:
    cluster = prepared("one", "two", limit=1)
    [running] = cluster.unfinished_jobs()
    assert cluster.condition("EnginesReady", "two")["reason"] == "Queued"
    assert "NVIDIA-L4" in cluster.condition("EnginesReady", "two")["message"]
    cluster.end_job(running, 0, result(running))
    settle(cluster, "one", 1)
    [next_job] = cluster.unfinished_jobs()
    # Both have nothing running now; the first pipeline's other Jobs have waited longer or as long.
    assert next_job["metadata"]["name"] != running["metadata"]["name"]
    ended = set()
    while jobs := cluster.unfinished_jobs():
        assert len([job for job in jobs if job["metadata"]["name"].startswith("compile")]) <= 1
        for job in jobs:
            ended.add(job["metadata"]["name"])
            cluster.end_job(job, 0, result(job) | {"ensembles": []})
        for name in ("one", "two"):
            settle(cluster, name, 1)
    for name in ("one", "two"):
        assert cluster.condition("EnginesReady", name)["status"] == "True"


def test_builds_for_a_cpu_and_for_kueue_are_not_counted() -> None:
    for change in ({"targets": [{"name": "cpu"}]}, {"engines": {"labels": {naming.KUEUE: "gpus"}}}):
        cluster = FakeCluster()
        cluster.apply_pipeline(**({"targets": [L4]} | change))
        for _ in range(2):
            settle(cluster, "shapes", 1)
            cluster.succeed_jobs()
        settle(cluster, "shapes", 1)
        assert len(cluster.unfinished_jobs()) == 4


def test_a_suspended_pipeline_gives_up_its_place_in_the_queue() -> None:
    cluster = prepared("one", limit=1)
    cluster.apply_pipeline("one", targets=[L4], suspend=True)
    settle(cluster, "one", 1)
    assert [name for name in cluster.names("Job") if name.startswith("compile")] == []
    cluster.apply_pipeline("one", targets=[L4])
    settle(cluster, "one", 1)
    assert len([name for name in cluster.names("Job") if name.startswith("compile")]) == 4


@pytest.mark.parametrize("limit", [1, 3])
def test_a_settled_queue_is_looked_at_without_a_write(limit: int) -> None:
    cluster = prepared("one", limit=limit)
    cluster.writes.clear()
    asyncio.run(Reconciler(cluster, settings(limit)).reconcile(PipelineKey(NAMESPACE, "one")))
    assert cluster.writes == []
