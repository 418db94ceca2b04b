"""Envoy Gateway on the host: it reads Gateway API objects from the cluster and runs Envoy as its child."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.support.cluster.kube import eventually
from tests.support.integrations.processes import Program, running
from tests.support.integrations.programs import ENVOY, GATEWAY, GATEWAY_SOURCES, envoy, manifests, programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.cluster.kube import Kube, Object

NAME = "public"
_API = "gateway.envoyproxy.io/v1alpha1"
_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_CRDS = "charts/gateway-helm/charts/crds/crds"
# Envoy Gateway fixes these.
_CERTIFICATES = Path("/certs")
_SECONDS = 60
_READY = "http://127.0.0.1:8081/readyz"


@contextmanager
def envoy_gateway(kube: Kube, folder: Path, ports: Mapping[str, int]) -> Iterator[None]:
    """Envoy Gateway with the Gateway `public` while the block runs; nothing of it is in the cluster afterwards.

    Args:
        kube: the cluster and the Gateway's namespace.
        folder: for what the two programs write.
        ports: of the Gateway, on the host, by the names of its listeners.
    """
    crds = manifests(GATEWAY, GATEWAY_SOURCES) / _CRDS
    files = [f"--filename={path}" for path in (crds, crds / "generated")]
    kube.run("apply", "--server-side", "--force-conflicts", *files)
    try:
        kube.run("wait", "--for=condition=Established", "--timeout=60s", *files)
        with _certificates(folder), running(_program(kube, folder)), _gateway(kube, ports):
            yield
    finally:
        kube.run("delete", "--ignore-not-found", "--wait=true", *files)


def wait_for_route(kube: Kube, kind: str, name: str) -> None:
    """Wait until the Gateway has taken a route as it is now.

    Raises:
        AssertionError: with the route, where it does not.
    """
    eventually(lambda: _is_accepted(kube.get(kind, name) or {}), _SECONDS, lambda: _story(kube, kind, name))


def _is_accepted(route: Object) -> bool:
    conditions = [c for parent in route.get("status", {}).get("parents", []) for c in parent["conditions"]]
    current = [c for c in conditions if c["observedGeneration"] == route["metadata"]["generation"]]
    states = {c["type"]: c["status"] for c in current}
    return (states.get("Accepted"), states.get("ResolvedRefs")) == ("True", "True")


def _story(kube: Kube, kind: str, name: str) -> str:
    return f"the Gateway takes {kind}\n{kube.run('get', kind, name, '-o', 'yaml')}"


@contextmanager
def _gateway(kube: Kube, ports: Mapping[str, int]) -> Iterator[None]:
    kube.apply(*_objects(ports))
    try:
        yield
    finally:
        # Envoy Gateway holds its class as long as there are gateways, and has to be there to let go of it.
        for name in (f"gateway/{NAME}", f"gatewayclass/{NAME}"):
            kube.run("delete", name, "--timeout=60s")


def _program(kube: Kube, folder: Path) -> Program:
    config = folder / "envoy-gateway.yaml"
    config.write_text(yaml.safe_dump(_config(folder)))
    # Where Envoy Gateway looks before it downloads one.
    binary = folder / "data" / "envoy-versions" / ENVOY / "bin" / "envoy"
    binary.parent.mkdir(parents=True)
    binary.symlink_to(envoy())
    environment = {**kube.environment, "ENVOY_GATEWAY_NAMESPACE": kube.namespace}
    program = str(programs(GATEWAY) / "envoy-gateway")
    for where in ("--disable-topology-injector", f"--config-home={folder / 'config'} --local"):
        subprocess.run([program, "certgen", *where.split()], env=environment, check=True, capture_output=True)
    argv = [program, "server", f"--config-path={config}"]
    return Program(argv, _READY, folder / "envoy-gateway.log", environment)


@contextmanager
def _certificates(folder: Path) -> Iterator[None]:
    """The way to the certificates where a pod would have them mounted."""
    if _CERTIFICATES.is_symlink():  # of a test that was killed
        _CERTIFICATES.unlink()
    _CERTIFICATES.symlink_to(folder / "config" / "certs" / "envoy-gateway")
    try:
        yield
    finally:
        _CERTIFICATES.unlink()


def _config(folder: Path) -> Object:
    places = {"configHome": "config", "dataHome": "data", "stateHome": "state", "runtimeDir": "run"}
    host = {name: str(folder / place) for name, place in places.items()}
    custom = {"resource": {"type": "Kubernetes"}, "infrastructure": {"type": "Host", "host": host}}
    return {
        "apiVersion": _API,
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": _CONTROLLER},
        "provider": {"type": "Custom", "custom": custom},
    }


def _objects(ports: Mapping[str, int]) -> list[Object]:
    proxy = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": NAME}
    listeners = [{"name": name, "protocol": "HTTP", "port": port} for name, port in ports.items()]
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": NAME},
            "spec": {"controllerName": _CONTROLLER},
        },
        {
            "apiVersion": _API,
            "kind": "EnvoyProxy",
            "metadata": {"name": NAME},
            "spec": {"provider": {"type": "Host", "host": {"envoyVersion": ENVOY}}},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": NAME},
            "spec": {
                "gatewayClassName": NAME,
                "listeners": listeners,
                "infrastructure": {"parametersRef": proxy},
            },
        },
    ]
