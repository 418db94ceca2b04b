"""Canaries against an API server in memory: changes, reconciles while time passes, and what the objects then say."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from diffusion_operator import naming
from diffusion_operator.analysis.counters import EnsembleStats, StepCounters
from diffusion_operator.analysis.window import ScrapeTarget, Window
from diffusion_operator.api import KIND
from diffusion_operator.metrics_scraper import MetricsScraper
from diffusion_operator.reconcile import PipelineKey, Reconciler
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STEPS = [{"weight": 10, "pause": "1s"}, {"weight": 50, "pause": "1s"}]
GOOD = Window({"generate_20_pipeline": EnsembleStats(200, 0, 200.0, 1.0, 1.2)}, StepCounters(4000, 40.0, 4000, 4000), 1)
BAD = Window(
    {"generate_20_pipeline": EnsembleStats(100, 100, 100.0, 1.0, 1.2)}, StepCounters(2000, 20.0, 2000, 2000), 1
)


class FakeScraper(MetricsScraper):
    """Says the same about every stable and every canary."""

    def __init__(self, canary: Window) -> None:
        super().__init__()
        self._canary = canary
        self.targets: list[ScrapeTarget] = []

    async def windows(self, pipeline: str, scrape_targets: Iterable[ScrapeTarget]) -> Mapping[tuple[str, str], Window]:
        assert pipeline.count("/") == 1
        self.targets = list(scrape_targets)
        return {item.key: self._canary if index % 2 == 0 else GOOD for index, item in enumerate(self.targets)}


def change(cluster: FakeCluster, number: int, targets: int = 1, **rollout: Any) -> None:  # noqa: ANN401 - any field
    """Another serving image for every number: nothing is built for it."""
    places = [{"name": name, "replicas": 2} for name in ("cpu", "spare")[:targets]]
    notes = cluster.objects.get((KIND, "shapes"), {"metadata": {}})["metadata"].get("annotations", {})
    status = cluster.objects.get((KIND, "shapes"), {}).get("status", {})
    pipeline = cluster.apply_pipeline(
        serving={"image": f"triton:{number}"}, targets=places, rollout={"steps": STEPS, **rollout}
    )
    pipeline["metadata"]["annotations"], pipeline["status"] = notes, status


def reconcile_with(cluster: FakeCluster, scraper: MetricsScraper) -> float | None:
    return asyncio.run(Reconciler(cluster, SETTINGS, scraper=scraper).reconcile(PipelineKey(NAMESPACE, "shapes")))


def run_rollout(cluster: FakeCluster, canary: Window = GOOD, passes: int = 16) -> list[str]:
    """Passes with new operators while pods start, Jobs succeed and time flies; returns what the column said."""
    summaries: list[str] = []
    for _ in range(passes):
        reconcile_with(cluster, FakeScraper(canary))
        summary = str(cluster.pipeline()["status"]["summary"].get("canary"))
        if summary not in summaries[-1:]:
            summaries.append(summary)
        cluster.succeed_jobs()
        for name in cluster.names("Deployment"):
            cluster.set_ready(name, cluster.objects["Deployment", name]["spec"]["replicas"])
        age(cluster)
        # Nothing is decided on the status.
        cluster.pipeline()["status"] = {}
    reconcile_with(cluster, FakeScraper(canary))
    return summaries


def age(cluster: FakeCluster) -> None:
    """Let every note be older than any pause, and younger than any deadline."""
    for name in cluster.names("Deployment"):
        notes = cluster.objects["Deployment", name]["metadata"]["annotations"]
        if naming.ROLLOUT in notes:
            note = json.loads(notes[naming.ROLLOUT])
            minutes = int(note["since"][14:16])
            note["since"] = note["since"][:14] + f"{max(0, minutes - 1):02}:00Z"
            notes[naming.ROLLOUT] = json.dumps(note)


def stable(cluster: FakeCluster, target: str = "cpu") -> str:
    return str(cluster.objects["Service", f"shapes-{target}"]["metadata"]["annotations"][naming.STABLE])


def selector(cluster: FakeCluster, name: str) -> dict[str, str]:
    labels: dict[str, str] = cluster.objects["Service", name]["spec"]["selector"]
    return labels


def replicas(cluster: FakeCluster, target: str = "cpu") -> dict[str, int]:
    prefix = f"shapes-{target}-"
    return {
        name.removeprefix(prefix): cluster.objects["Deployment", name]["spec"]["replicas"]
        for name in cluster.names("Deployment")
        if name.startswith(prefix)
    }


def events(cluster: FakeCluster) -> list[str]:
    return [item["message"] for (kind, _), item in cluster.objects.items() if kind == "Event"]


def deployments(cluster: FakeCluster) -> list[dict[str, Any]]:
    return [cluster.objects["Deployment", name] for name in cluster.names("Deployment")]


GATEWAY: dict[str, Any] = {"traffic": {"gateway": {"name": "web"}, "mirrorPercent": 5}}


def shares(cluster: FakeCluster, kind: str) -> dict[str, int]:
    """Weights of the Services in the rule for everybody."""
    refs = cluster.objects[kind, "shapes"]["spec"]["rules"][-1]["backendRefs"]
    return {ref["name"]: ref["weight"] for ref in refs}
