"""A real Prometheus answers every query of the dashboards and alerts, from what operator and Triton export."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from diffusion_gateway.metrics import Metrics as GatewayMetrics
from diffusion_operator.metrics import Metrics
from tests.support.cluster.kube import eventually
from tests.support.integrations.pages import metrics_pages
from tests.support.integrations.prometheus import Prometheus, running_prometheus
from tests.support.queries import ALERTS, RECORDED, expressions, live, live_gateway, plain
from tools.dashboards.content import BOARDS

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = ("5_denoiser", "7_vae_decoder", "generate_4_pipeline")
SERVING = {"namespace": "studio", "pipeline": "shapes", "target": "l4"}
# There is no GPU in the recording.
_GPU = "nv_gpu_"


def triton(scrapes: int) -> str:
    """The recorded page for several models, with values that grow."""
    lines = [line for line in RECORDED.read_text().splitlines() if "5_denoiser" in line]
    pages = [line.replace("5_denoiser", model) for model in MODELS for line in lines]
    return "\n".join(re.sub(r" 0$", f" {10 * scrapes}", line) for line in pages) + "\n"


@pytest.fixture(scope="module")
def exporter() -> Iterator[str]:
    """host:port of something that exports as operator and servers do."""
    metrics, gateway, scrapes = Metrics(), GatewayMetrics(), iter(range(1, 1_000_000))
    pages = {
        "/operator": lambda: live(metrics),
        "/gateway": lambda: live_gateway(gateway),
        "/triton": lambda: triton(next(scrapes)),
    }
    with metrics_pages(pages) as address:
        yield address


@pytest.fixture(scope="module")
def prometheus(exporter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has read everything several times."""
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), _scrape_jobs(exporter)) as server:
        read = "min(count_over_time(nv_inference_count[5m])) >= 3 and min(count_over_time(up[5m])) >= 3"
        eventually(lambda: bool(server.query(read)), 60, lambda: "Prometheus reads three times")
        yield server


def _scrape_jobs(exporter: str) -> list[dict[str, object]]:
    pods = [{"targets": [exporter], "labels": {**SERVING, "revision": name, "pod": name}} for name in ("a1", "b2")]
    api = {"targets": [exporter], "labels": {"namespace": "studio", "pipeline": "shapes", "pod": "shapes-api-1"}}
    own = {"targets": [exporter], "labels": {"namespace": "diffusion-operator", "pod": "operator"}}
    return [
        {"job_name": "operator", "metrics_path": "/operator", "static_configs": [own]},
        {"job_name": "apis", "metrics_path": "/gateway", "static_configs": [api]},
        {"job_name": "pipelines", "metrics_path": "/triton", "static_configs": pods},
    ]


@pytest.mark.parametrize(
    "query",
    [query.expr for board in BOARDS for panel in board.panels for query in panel.queries if _GPU not in query.expr],
)
def test_every_panel_shows_something(prometheus: Prometheus, query: str) -> None:
    assert prometheus.query(plain(query)) != []


def test_prometheus_understands_every_alert(prometheus: Prometheus) -> None:
    for query in expressions(ALERTS.read_text()):
        prometheus.query(query)
