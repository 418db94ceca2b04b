"""KEDA: its own custom resources and rules in the cluster, its operator and its metrics server on the host."""

from __future__ import annotations

import base64
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from tests.support.cluster.kube import Kube
from tests.support.integrations.processes import HOST, Program, running
from tests.support.integrations.programs import KEDA, KEDA_SOURCES, manifests, programs
from tools.devcluster.pki import Pki, Subject
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster.kube import Object

NAMESPACE = "keda"
_SERVER = "keda-metrics-apiserver"
_HOSTS = (f"{_SERVER}.{NAMESPACE}.svc", f"keda-operator.{NAMESPACE}.svc", "127.0.0.1", HOST)
_ENVIRONMENT = {"POD_NAMESPACE": NAMESPACE, "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE, "WATCH_NAMESPACE": ""}
# Its workloads run on the host, where no pod's identity is needed.
_LEFT_OUT = {"Deployment", "Service", "APIService"}


@dataclass(frozen=True)
class Ports:
    """Where KEDA's two programs listen."""

    server: int
    grpc: int
    health: int


@contextmanager
def keda(kube: Kube, folder: Path) -> Iterator[None]:
    """KEDA while the block runs; nothing of it is in the cluster afterwards."""
    kube, ports = Kube(kube.environment, ""), Ports(*free_ports(3))
    certificates = _certificates(folder / "keda-certificates")
    authority = base64.b64encode((certificates / "ca.crt").read_bytes()).decode()
    objects = [*_own_objects(kube), *_way_to_the_host(ports.server, authority)]
    # The namespace first, and last when it goes.
    objects.sort(key=lambda one: one["kind"] != "Namespace")
    kube.apply(*objects)
    try:
        kube.run("wait", "crd/scaledobjects.keda.sh", "--for=condition=Established", "--timeout=60s")
        environment = {**kube.environment, **_ENVIRONMENT}
        with running(_operator(ports, certificates, environment)), running(_server(ports, certificates, environment)):
            kube.run("wait", "apiservice/v1beta1.external.metrics.k8s.io", "--for=condition=Available", "--timeout=60s")
            yield
    finally:
        everything = yaml.safe_dump_all(reversed(objects))
        kube.run("delete", "--ignore-not-found", "--wait=true", "-f", "-", stdin=everything)


def _own_objects(kube: Kube) -> list[Object]:
    folder = manifests(KEDA, KEDA_SOURCES) / "config" / "minimal"
    documents = yaml.safe_load_all(kube.run("kustomize", str(folder)))
    return [one for one in documents if one["kind"] not in _LEFT_OUT]


def _way_to_the_host(port: int, authority: str) -> list[Object]:
    place = {"name": _SERVER, "namespace": NAMESPACE}
    endpoints = {**place, "labels": {"kubernetes.io/service-name": _SERVER}}
    api = "v1beta1.external.metrics.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": place, "spec": {"ports": [{"name": "https", "port": 443}]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": endpoints,
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": port}],
            "endpoints": [{"addresses": [HOST]}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": api},
            "spec": {
                "service": place,
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": authority,
            },
        },
    ]


def _certificates(folder: Path) -> Path:
    """A folder as KEDA's Secret is mounted: ca.crt, tls.crt and tls.key."""
    pki = Pki(folder)
    pair = pki.issue("tls", Subject("keda", hosts=_HOSTS))
    shutil.copy(pki.authority("cluster").certificate, pair.certificate.with_name("ca.crt"))
    return folder


def _operator(ports: Ports, certificates: Path, environment: dict[str, str]) -> Program:
    argv: list[str | Path] = [
        programs(KEDA) / "keda-operator",
        f"--cert-dir={certificates}",
        "--metrics-bind-address=0",
        f"--health-probe-bind-address=127.0.0.1:{ports.health}",
        f"--metrics-service-bind-address=127.0.0.1:{ports.grpc}",
        "--enable-apiservice-patching=false",
        "--enable-webhook-patching=false",
    ]
    ready = f"http://127.0.0.1:{ports.health}/readyz"
    return Program(argv, ready, certificates.parent / "keda-operator.log", environment)


def _server(ports: Ports, certificates: Path, environment: dict[str, str]) -> Program:
    kubeconfig = environment["KUBECONFIG"]
    argv: list[str | Path] = [
        programs(KEDA) / "keda-adapter",
        f"--secure-port={ports.server}",
        f"--bind-address={HOST}",
        *(f"--{use}-kubeconfig={kubeconfig}" for use in ("lister", "authentication", "authorization")),
        f"--client-ca-file={certificates / 'ca.crt'}",
        f"--tls-cert-file={certificates / 'tls.crt'}",
        f"--tls-private-key-file={certificates / 'tls.key'}",
        f"--cert-dir={certificates}",
        f"--metrics-service-address=127.0.0.1:{ports.grpc}",
        "--port=0",
    ]
    return Program(argv, f"https://{HOST}:{ports.server}/readyz", certificates.parent / "keda-adapter.log", environment)
