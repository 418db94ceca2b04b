"""Prometheus on the host: it finds the serving pods as the chart's PodMonitor does, and asks the test's own counter."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from tests.support.integrations.processes import Program, running
from tests.support.integrations.programs import PROMETHEUS, programs
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.support.cluster.kube import Kube

_SERVING = "app.kubernetes.io/managed-by=diffusion-operator,app.kubernetes.io/component=serving"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The samples of an instant vector: {"metric": {...}, "value": [time, "number"]}."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": promql}).raise_for_status().json()
        return list(answer["data"]["result"])

    def number(self, promql: str) -> float:
        """The only sample's value; 0 where there is none."""
        return sum(float(sample["value"][1]) for sample in self.query(promql))


@contextmanager
def prometheus(kube: Kube, folder: Path, front: str) -> Iterator[Prometheus]:
    """Prometheus while the block runs.

    Args:
        kube: the cluster.
        folder: for its data and its log.
        front: host:port with metrics about what comes in, as a gateway's are.
    """
    jobs = _scrape_jobs(kube.environment["KUBECONFIG"], front)
    with running_prometheus(folder, jobs, kube.environment) as server:
        yield server


@contextmanager
def running_prometheus(
    folder: Path, scrape_jobs: Sequence[Mapping[str, Any]], environment: Mapping[str, str] = os.environ
) -> Iterator[Prometheus]:
    """Prometheus while the block runs, with these scrape_configs.

    Args:
        folder: for its configuration, its data and its log.
        scrape_jobs: which are scraped every second.
        environment: of its process.
    """
    (port,) = free_ports(1)
    config = folder / "prometheus.yaml"
    interval = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config.write_text(yaml.safe_dump({"global": interval, "scrape_configs": list(scrape_jobs)}))
    argv: list[str | Path] = [
        programs(PROMETHEUS) / "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    server = Prometheus(f"http://127.0.0.1:{port}")
    with running(Program(argv, f"{server.url}/-/ready", folder / "prometheus.log", environment)):
        yield server


def _scrape_jobs(kubeconfig: str, front: str) -> list[dict[str, Any]]:
    pods = {"role": "pod", "kubeconfig_file": kubeconfig, "selectors": [{"role": "pod", "label": _SERVING}]}
    relabel = [
        {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "metrics", "action": "keep"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    ]
    return [
        {"job_name": "pipelines", "kubernetes_sd_configs": [pods], "relabel_configs": relabel},
        {"job_name": "front", "static_configs": [{"targets": [front]}]},
    ]
