"""The Prometheus adapter beside an API server without nodes, which passes requests for metrics of pods on to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.cluster.kube import Kube
from tests.support.integrations.processes import Program, running
from tests.support.integrations.programs import ADAPTER, programs
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tools.devcluster.bare import ApiServer

API = "custom.metrics.k8s.io"
_NAME, _NAMESPACE = "prometheus-adapter", "default"


@contextmanager
def metrics_adapter(server: ApiServer, rules: Path, prometheus: str, folder: Path) -> Iterator[None]:
    """Run it until the block ends; the API server calls its API available when the block begins.

    Args:
        server: of which it is a part then.
        rules: its configuration file.
        prometheus: address of Prometheus.
        folder: for its certificate and log.
    """
    (port,) = free_ports(1)
    users = [f"--{use}-kubeconfig={server.kubeconfig}" for use in ("lister", "authentication", "authorization")]
    argv: list[str | Path] = [
        programs(ADAPTER) / "prometheus-adapter",
        f"--config={rules}",
        f"--prometheus-url={prometheus}",
        "--metrics-relist-interval=1s",
        "--metrics-max-age=1m",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        *users,
    ]
    ready = f"https://127.0.0.1:{port}/readyz"
    with running(Program(argv, ready, folder / "prometheus-adapter.log", server.environment)):
        _register(Kube(server.environment, _NAMESPACE), port)
        yield


def _register(kube: Kube, port: int) -> None:
    """Nothing routes addresses of Services here, so this one is a name of the machine."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    name = f"v1beta2.{API}"
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {
            "group": API,
            "version": "v1beta2",
            "service": {"name": _NAME, "namespace": _NAMESPACE, "port": port},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 200,
        },
    }
    kube.apply(service, api)
    kube.run("wait", f"apiservice/{name}", "--for=condition=Available", "--timeout=60s")
