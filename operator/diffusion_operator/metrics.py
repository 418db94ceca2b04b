"""Metrics of the operator and of the builds, for Prometheus."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

PREFIX = "diffusion_operator"
BUILD = ("stage", "component", "sku")
RECONCILE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BUILD_BUCKETS = (1, 5, 15, 60, 180, 600, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class Readiness:
    """Readiness of a pipeline.

    Attributes:
        status: of its condition `Ready`.
        reason: of that condition.
        suspended: whether `spec.suspend` is set; the reason may be another one, such as that of a failed build.
    """

    status: str
    reason: str
    suspended: bool = False


class Metrics:
    """All series of one operator process, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": PREFIX, "registry": self._registry}
        text = "Duration of reconciles, by outcome."
        self._reconciles = Histogram("reconcile_duration_seconds", text, ("outcome",), buckets=RECONCILE_BUCKETS, **own)
        text = "Duration of build Jobs that produced an artifact."
        self._builds = Histogram("build_duration_seconds", text, BUILD, buckets=BUILD_BUCKETS, **own)
        self._hits = Counter("build_cache_hits", "Build Jobs whose artifact was already in the store.", BUILD, **own)
        self._failures = Counter("build_failures", "Failed build Jobs.", BUILD, **own)
        self._leader = Gauge("leader", "1 while this process is the leader.", **own)
        self._queue = Gauge("queue_length", "Pipelines waiting to be reconciled.", **own)
        self._pipelines = PipelineCollector()
        self._registry.register(self._pipelines)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def set_queue_gauge(self, length: Callable[[], float]) -> None:
        """Read the queue length from this function at every scrape."""
        self._queue.set_function(length)

    def set_leader(self, *, leads: bool) -> None:
        """Record whether this process is the leader."""
        self._leader.set(leads)

    def observe_reconcile(self, outcome: str, seconds: float) -> None:
        """Record a reconcile."""
        self._reconciles.labels(outcome).observe(seconds)

    def observe_build(self, labels: tuple[str, str, str], result: Mapping[str, Any]) -> None:
        """A Job's result was seen for the first time.

        Args:
            labels: stage, component and SKU; empty where the stage has none.
            result: what the builder reported.
        """
        if "error" in result:
            self._failures.labels(*labels).inc()
        elif result.get("cached"):
            self._hits.labels(*labels).inc()
        else:
            self._builds.labels(*labels).observe(float(result.get("seconds") or 0))

    def record_pipeline(self, pipeline: str, *, ready: Readiness, jobs: Iterable[tuple[str, str, str]]) -> None:
        """Record the state of the pipeline `namespace/name`.

        Args:
            pipeline: its namespace and name.
            ready: its readiness.
            jobs: its Jobs as (namespace/name, stage, state).
        """
        self._pipelines.pipelines[pipeline] = (ready, tuple(jobs))

    def remove_pipeline(self, pipeline: str) -> None:
        """Forget a deleted pipeline."""
        self._pipelines.pipelines.pop(pipeline, None)


class PipelineCollector:
    """Gauges over all pipelines, counted when they are read: a shared Job counts once."""

    def __init__(self) -> None:
        self.pipelines: dict[str, tuple[Readiness, tuple[tuple[str, str, str], ...]]] = {}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families, for the registry."""
        states = Tally((readiness.status,) for readiness, _ in self.pipelines.values())
        jobs = {name: (stage, state) for _, jobs in self.pipelines.values() for name, stage, state in jobs}
        yield _family("pipelines", "Pipelines, by status of the condition Ready.", ["ready"], states)
        yield self._readiness()
        yield _family("jobs", "Existing build Jobs, by state.", ["stage", "state"], Tally(jobs.values()))

    def _readiness(self) -> GaugeMetricFamily:
        text = "1 where a pipeline's condition Ready is true, with the condition's reason."
        # Not `namespace`: a scrape would rename it, since that label is the operator's own namespace.
        labels = ["pipeline_namespace", "pipeline", "reason", "suspended"]
        values = {
            (*key.split("/"), readiness.reason, str(readiness.suspended).lower()): int(readiness.status == "True")
            for key, (readiness, _) in self.pipelines.items()
        }
        return _family("pipeline_ready", text, labels, values)


def _family(name: str, text: str, labels: list[str], counts: Mapping[Any, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(list(values), count)
    return family
