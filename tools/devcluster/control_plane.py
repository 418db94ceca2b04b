"""Components that are no node's, in the order in which they need each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.devcluster.health import Endpoint

if TYPE_CHECKING:
    from tools.common.log import Logger
    from tools.devcluster.component_factory import ComponentFactory
    from tools.devcluster.kubectl import Kubectl
    from tools.devcluster.processes import Processes

_API_SECONDS = 120.0
_HEALTH_SECONDS = 60.0


def ensure(factory: ComponentFactory, processes: Processes, log: Logger) -> None:
    """Start what does not run, and wait until everything is healthy.

    Raises:
        ToolError: A component ended or did not become healthy.
    """
    authority, admin = factory.pki.authority("cluster").certificate, factory.admin()
    started = [processes.ensure(factory.etcd()), processes.ensure(factory.apiserver())]
    api = Endpoint(str(factory.network.control), factory.network.apiserver_port, "/readyz", authority, admin)
    processes.wait("kube-apiserver", api.healthy, _API_SECONDS)
    ports = (factory.network.controller_manager_port, factory.network.scheduler_port)
    controllers = factory.controllers()
    started += [processes.ensure(component) for component in controllers]
    for component, port in zip(controllers, ports, strict=True):
        health = Endpoint("127.0.0.1", port, "/healthz", authority)
        processes.wait(component.name, health.healthy, _HEALTH_SECONDS)
    log("control plane ready" if any(started) else "control plane runs")


def ensure_services(factory: ComponentFactory, processes: Processes, kubectl: Kubectl, first_node: str) -> None:
    """Start what pods rely on (kube-proxy, CoreDNS, volumes, the default service account) and wait for it.

    Raises:
        ToolError: A component ended or did not become healthy.
    """
    for component in factory.services(first_node):
        processes.ensure(component)
    network = factory.network
    for name, endpoint in {
        "coredns": Endpoint("127.0.0.1", network.dns_ready_port, "/ready"),
        "kube-proxy": Endpoint("127.0.0.1", network.proxy_health_port, "/healthz"),
    }.items():
        processes.wait(name, endpoint.healthy, _HEALTH_SECONDS)
    account = ("get", "serviceaccount", "default", "--namespace=default")
    # Until the controller manager has made it, every pod in the namespace is refused.
    manager = "kube-controller-manager"
    processes.wait(manager, lambda: not kubectl.attempt(*account).returncode, _HEALTH_SECONDS)
