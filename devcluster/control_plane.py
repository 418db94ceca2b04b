"""etcd, API server, controller manager and scheduler, in the order in which they need each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devcluster.probe import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from devcluster.processes import Processes
    from devcluster.wiring import Wiring

_API_SECONDS = 60.0
_CONTROLLER_SECONDS = 30.0


def ensure(wiring: Wiring, processes: Processes, say: Callable[[str], None]) -> None:
    """Start what does not run, and wait until everything is healthy.

    Raises:
        DevclusterError: A component ended or did not become healthy.
    """
    authority, admin = wiring.pki.authority("cluster").certificate, wiring.admin()
    started = [processes.ensure(wiring.etcd()), processes.ensure(wiring.apiserver())]
    api = Endpoint(str(wiring.network.control), wiring.network.apiserver_port, "/readyz", authority, admin)
    processes.wait("kube-apiserver", api.healthy, _API_SECONDS)
    ports = (wiring.network.controller_manager_port, wiring.network.scheduler_port)
    controllers = wiring.controllers()
    started += [processes.ensure(component) for component in controllers]
    for component, port in zip(controllers, ports, strict=True):
        own = Endpoint("127.0.0.1", port, "/healthz", authority)
        processes.wait(component.name, own.healthy, _CONTROLLER_SECONDS)
    say("control plane ready" if any(started) else "control plane runs")
