"""One node of the cluster: containerd, kubelet, simulated GPUs; starting and deleting it."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.common.errors import ToolError
from tools.common.files import write
from tools.common.shell import attempt, run
from tools.devcluster import cgroups, host, leftovers, network
from tools.devcluster.health import Endpoint
from tools.devcluster.images import pause_archive
from tools.devcluster.layout import PAUSE_IMAGE
from tools.devcluster.nodes import GPU_COUNT, GPU_PRODUCT, GPU_RESOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.devcluster.component_factory import ComponentFactory
    from tools.devcluster.configs import NodeFolders
    from tools.devcluster.kubectl import Kubectl
    from tools.devcluster.nodes import Node, PlacedNode
    from tools.devcluster.processes import Processes

_CONTAINERD_SECONDS = 60.0
_READY_SECONDS = 180.0
_GPU_SECONDS = 60.0
_KILL_SECONDS = 20.0
_POLL_SECONDS = 0.1
_GPU_LABELS = (GPU_PRODUCT, GPU_COUNT)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Nodes:
    """Starts and deletes nodes."""

    factory: ComponentFactory
    processes: Processes
    kubectl: Kubectl

    def start_containerd(self, placed: PlacedNode) -> None:
        """Start a node's container runtime; does not wait for it."""
        self.processes.ensure(self.factory.containerd(placed))

    def start_kubelet(self, placed: PlacedNode) -> None:
        """Start a node's kubelet once its runtime answers and holds the pause image."""
        folders = self.factory.folders(placed)
        name = f"containerd@{placed.node.name}"
        self.processes.wait(name, lambda: self._runtime_answers(folders), _CONTAINERD_SECONDS)
        self._import_pause(folders)
        network.ensure_node(self.factory.network, placed)
        cgroups.make(folders.cgroup)
        self.processes.ensure(self.factory.kubelet(placed))

    def wait_ready(self, placed: PlacedNode) -> None:
        """Wait until the API server calls the node Ready, and give it its labels and GPUs."""
        name = placed.node.name
        # The API server goes on calling a node Ready for a while after its kubelet was killed.
        port = self.factory.network.kubelet_health_port + placed.index
        health = Endpoint("127.0.0.1", port, "/healthz")
        self.processes.wait(f"kubelet@{name}", health.healthy, _READY_SECONDS, "healthy")
        self.processes.wait(f"kubelet@{name}", lambda: self.ready(name), _READY_SECONDS)
        self._label(placed.node)
        if placed.node.host_gpus:
            self._wait_for_gpus(placed)
        else:
            self.processes.stop(f"device-plugin@{name}")
            self._simulate_gpus(placed.node)

    def ready(self, name: str) -> bool:
        """Return whether a node is Ready."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl.attempt("get", "node", name, "-o", f"jsonpath={path}").stdout == "True"

    def delete(self, placed: PlacedNode) -> None:
        """Stop a node with everything that runs on it, and delete it from the API."""
        name, folders = placed.node.name, self.factory.folders(placed)
        self.processes.stop(f"device-plugin@{name}", force=True)
        self.processes.stop(f"kubelet@{name}", force=True)
        self.clear(placed)
        leftovers.remove_tree(folders.home)
        leftovers.remove_tree(folders.run)
        host.remove_links(folders.home)
        network.remove_node(self.factory.network, placed)
        self.kubectl.attempt("delete", "node", name, "--ignore-not-found")
        # The pod collector would come for them too, but only after 40 s.
        selector = f"--field-selector=spec.nodeName={name}"
        self.kubectl.attempt("delete", "pods", "-A", selector, "--force", "--grace-period=0")

    def clear(self, placed: PlacedNode) -> None:
        """Kill a node's containers and runtime, and remove its cgroups.

        Raises:
            ToolError: A process cannot be killed.
        """
        folders = self.factory.folders(placed)
        deadline = time.monotonic() + _KILL_SECONDS
        self.processes.stop(f"containerd@{placed.node.name}", force=True)
        leftovers.kill_shims(folders.run)
        while cgroups.kill(folders.cgroup) or not cgroups.remove(folders.cgroup):
            if time.monotonic() > deadline:
                raise ToolError(f"processes of node {placed.node.name} do not end", do="run this again")
            time.sleep(_POLL_SECONDS)

    def _runtime_answers(self, folders: NodeFolders) -> bool:
        return not attempt(self._ctr(folders, "images", "list", "-q")).returncode

    def _import_pause(self, folders: NodeFolders) -> None:
        if PAUSE_IMAGE in run(self._ctr(folders, "images", "list", "-q")).split():
            return
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        program = self.factory.programs.pause.read_bytes()
        archive = self.factory.layout.config / "pause.tar"
        write(archive, pause_archive(program, PAUSE_IMAGE, architecture))
        run(self._ctr(folders, "images", "import", str(archive)))

    def _ctr(self, folders: NodeFolders, *arguments: str) -> list[str]:
        ctr = str(self.factory.programs.ctr)
        return [ctr, f"--address={folders.containerd_socket}", "--namespace=k8s.io", *arguments]

    def _label(self, node: Node) -> None:
        current = self.kubectl.get("node", node.name)["metadata"].get("labels", {})
        desired = {key: node.labels.get(key) for key in _GPU_LABELS}
        if desired != {key: current.get(key) for key in _GPU_LABELS}:
            self._patch(node, {"metadata": {"labels": desired}})

    def _wait_for_gpus(self, placed: PlacedNode) -> None:
        component = self.factory.device_plugin(placed)
        self.processes.ensure(component)
        field = f"jsonpath={{.status.allocatable.{GPU_RESOURCE.replace('.', chr(92) + '.')}}}"
        count = str(placed.node.gpu_count)

        def allocatable() -> bool:
            return self.kubectl.attempt("get", "node", placed.node.name, "-o", field).stdout == count

        self.processes.wait(component.name, allocatable, _GPU_SECONDS, f"known to the kubelet with {count} GPUs")

    def _simulate_gpus(self, node: Node) -> None:
        count = str(node.gpu_count) if node.gpu_count else None
        status = self.kubectl.get("node", node.name)["status"]
        fields = ("capacity", "allocatable")
        if any(status.get(field, {}).get(GPU_RESOURCE) != count for field in fields):
            patch = {"status": {field: {GPU_RESOURCE: count} for field in fields}}
            self._patch(node, patch, "--subresource=status")

    def _patch(self, node: Node, patch: Mapping[str, object], *flags: str) -> None:
        self.kubectl.run("patch", "node", node.name, "--type=merge", f"--patch={json.dumps(patch)}", *flags)
