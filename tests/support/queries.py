"""PromQL against what is really exported: names of series and labels."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import promql_parser
from prometheus_client import generate_latest

from diffusion_gateway.metrics import Metrics as GatewayMetrics
from diffusion_operator.metrics import Metrics, Readiness
from tests.support.paths import ROOT

RECORDED = ROOT / "tests" / "recorded" / "triton-2.51-metrics.txt"
# A scrape by the chart's monitors adds these; the second ones are relabelings of the monitor of pipelines' pods.
SCRAPED = frozenset({"namespace", "pod", "container", "endpoint", "instance", "job"})
RELABELED = frozenset({"pipeline", "target", "revision"})
# Only a server with a GPU has them. Their names stand in Triton 2.51's library; labels as NVIDIA documents them.
GPU = {name: frozenset({"gpu_uuid"}) for name in ("nv_gpu_utilization", "nv_gpu_memory_used_bytes")}
# What Grafana puts in.
GRAFANA = {"$__rate_interval": "5m", "$namespace": "studio", "$pipeline": "shapes", "$target": "l4"}


def labels_of(text: str) -> dict[str, frozenset[str]]:
    """Series to label names, of a page of metrics; prometheus_client's parser would rename Triton's counters."""
    labels_by_series: dict[str, frozenset[str]] = {}
    for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, flags=re.MULTILINE):
        labels_by_series[name] = labels_by_series.get(name, frozenset()) | frozenset(re.findall(r"(\w+)=\"", labels))
    return labels_by_series


def live(metrics: Metrics) -> str:
    """The operator's page after one more of everything that it counts."""
    build = ("compile", "denoiser", "NVIDIA-L4")
    metrics.set_leader(leads=True)
    metrics.observe_reconcile("ok", 0.1)
    results: tuple[dict[str, Any], ...] = ({"error": {}}, {"cached": True}, {"seconds": 1})
    for result in results:
        metrics.observe_build(build, result)
    metrics.observe_build(("export", "denoiser", ""), {"seconds": 20})
    metrics.record_pipeline(
        "studio/shapes", ready=Readiness("True", "Ready"), jobs=[("studio/job", "fetch", "Running")]
    )
    metrics.record_pipeline("studio/waits", ready=Readiness("False", "Compiling"), jobs=())
    return metrics.render().decode()


def live_gateway(metrics: GatewayMetrics) -> str:
    """The page of an images API after one more of everything that it counts."""
    metrics.requests.labels("shapes", "team", "generate", "200").inc()
    metrics.seconds.labels("shapes", "generate").observe(0.2)
    metrics.images.labels("shapes", "team", "image").inc()
    metrics.rejected.labels("shapes", "team").inc()
    for gauge in (metrics.waiting, metrics.running, metrics.ensembles):
        gauge.labels("shapes").set(1)
    return generate_latest(metrics.registry).decode()


@cache
def series() -> dict[str, frozenset[str]]:
    """Every series that a dashboard or an alert may ask for, with its labels."""
    own = {name: labels | SCRAPED for name, labels in labels_of(live(Metrics())).items()}
    pods = labels_of(RECORDED.read_text()) | GPU | labels_of(live_gateway(GatewayMetrics()))
    return own | {name: labels | SCRAPED | RELABELED for name, labels in pods.items()}


def plain(query: str) -> str:
    """The query with Grafana's variables filled in."""
    for name, value in GRAFANA.items():
        query = query.replace(name, value)
    return query


def problems(query: str) -> list[str]:
    """What is wrong with a query: it does not parse, or names a series or label that nobody exports."""
    try:
        parsed = promql_parser.parse(plain(query))
    except ValueError as error:
        return [str(error)]
    selectors: list[promql_parser.VectorSelector] = []
    grouped: set[str] = set()

    def visit(node: Any) -> bool:  # noqa: ANN401 - any kind of expression
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)
        return True

    promql_parser.walk(parsed, visit)
    names = [node.name or "" for node in selectors]
    wrong = [f"nobody exports {name}" for name in names if name not in series()]
    existing_labels = frozenset[str]().union(*(series()[name] for name in names if name in series()))
    queried_labels = {matcher.name for node in selectors for matcher in node.matchers.matchers} | grouped
    return wrong + [f"no series has the label {label}" for label in sorted(queried_labels - existing_labels)]


def legend_problems(query: str, legend: str) -> list[str]:
    """Labels that a legend shows and the query's result does not have."""
    legend_labels = re.findall(r"\{\{(\w+)\}\}", legend)
    groups = re.findall(r"by \(([^)]*)\)", query)
    labels = {label.strip() for group in groups for label in group.split(",")} if groups else {"pod", "gpu_uuid"}
    return [f"the legend shows {label}" for label in legend_labels if label not in labels]


ALERTS = ROOT / "charts" / "diffusion-operator" / "templates" / "alerts.yaml"


def expressions(rules: str) -> list[str]:
    """The PromQL of the chart's alerts; it has no template actions."""
    lines = re.findall(r"^ +expr: (?!\|)(.+)$", rules, flags=re.MULTILINE)
    blocks = re.findall(r"^( +)expr: \|-?\n((?:\1  .*\n)+)", rules, flags=re.MULTILINE)
    return [*lines, *(body for _, body in blocks)]
