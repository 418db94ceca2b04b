"""Bringing the whole cluster up and down."""

from __future__ import annotations

import fcntl
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.common.errors import ToolError, bad_input
from tools.common.files import write
from tools.devcluster import build, cgroups, control_plane, host, leftovers, network, preflight
from tools.devcluster.addons import addons
from tools.devcluster.component_factory import ComponentFactory
from tools.devcluster.gpus import find_host_gpus
from tools.devcluster.kubectl import Kubectl
from tools.devcluster.node import Nodes
from tools.devcluster.nodes import (
    DEFAULT_NODES,
    Node,
    PlacedNode,
    from_record,
    place,
    removed_nodes,
    to_record,
    with_host_gpus,
)
from tools.devcluster.processes import Component, Processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tools.common.log import Logger
    from tools.devcluster.layout import Layout, Network

NODE_COMPONENTS = ("containerd", "kubelet", "device-plugin")


@dataclass(frozen=True)
class Cluster:
    """The cluster of one folder."""

    layout: Layout
    network: Network
    log: Logger

    @property
    def processes(self) -> Processes:
        """The cluster's components."""
        return Processes(self.layout)

    @property
    def is_up(self) -> bool:
        """Whether the API server runs."""
        return self.processes.find("kube-apiserver") is not None

    def placed(self) -> tuple[PlacedNode, ...]:
        """Return the nodes that the cluster was last brought up with."""
        try:
            records = json.loads(self.layout.nodes.read_text())
        except FileNotFoundError:
            return ()
        return tuple(from_record(record) for record in records)

    def up(self, desired: Sequence[Node] | None) -> None:
        """Bring the cluster to the desired nodes; None keeps the existing ones.

        Raises:
            ToolError: This machine lacks something, or a component did not become ready.
        """
        preflight.require_root()
        with self._lock():
            preflight.ensure_packages(self.log)
            if not self.is_up:
                preflight.require_rights(self.layout.root)
            factory = ComponentFactory(self.layout, self.network, build.ensure(self.layout, self.log))
            existing = self.placed()
            nodes = place(self._with_gpus(desired or [p.node for p in existing] or DEFAULT_NODES), existing)
            surplus = removed_nodes(nodes, existing)
            # Recorded before anything starts: whatever a kill leaves, `down` knows all of it.
            self._record((*nodes, *surplus))
            self._bring_up(factory, nodes, surplus)
            self._record(nodes)

    def down(self) -> None:
        """Stop everything and leave nothing behind but programs, pushed images and the last logs."""
        preflight.require_root()
        with self._lock():
            if self.layout.state.is_dir():
                self._take_down()
            leftovers.remove_tree(self.layout.run)
            remains = leftovers.remaining(self.layout, self.network)
        if remains:
            raise ToolError("not everything could be removed", detail="\n".join(remains), do="run down again")

    def build(self) -> None:
        """Build and install the programs, which needs no rights on the machine."""
        with self._lock():
            build.ensure(self.layout, self.log)

    def qualified(self, component: str, node: str | None) -> str:
        """Return a component's full name: ``kubelet`` of the only node is ``kubelet@cpu-0``."""
        nodes = self.placed()
        if component in NODE_COMPONENTS and node is None and len(nodes) == 1:
            node = nodes[0].node.name
        return f"{component}@{node}" if node else component

    def component(self, name: str) -> Component:
        """Return a component by name, such as ``kubelet@cpu-0``.

        Raises:
            ToolError: The cluster has no such component.
        """
        components = {component.name: component for component in self._all(self._factory())}
        if name not in components:
            raise bad_input(f"there is no component {name}", do=f"choose from: {', '.join(components)}")
        return components[name]

    def stop(self, name: str, *, force: bool = False) -> bool:
        """Stop a component (``force``: by SIGKILL); return whether it ran."""
        return self.processes.stop(self.component(name).name, force=force)

    def start(self, name: str) -> None:
        """Start a component that was stopped; a kubelet is waited for, and gets its GPUs back."""
        self.processes.ensure(self.component(name))
        kind, _, node = name.partition("@")
        for placed in self.placed():
            if kind == "kubelet" and placed.node.name == node:
                self._nodes(self._factory()).wait_ready(placed)

    def kubectl(self) -> Kubectl:
        """Return kubectl with the administrator's rights."""
        return Kubectl(build.programs(self.layout).kubectl, self.layout.kubeconfig)

    def _factory(self) -> ComponentFactory:
        if not self.layout.nodes.is_file():
            raise bad_input("there is no cluster", do="python -m tools.devcluster up")
        return ComponentFactory(self.layout, self.network, build.require_built(self.layout))

    def _nodes(self, factory: ComponentFactory) -> Nodes:
        return Nodes(factory, self.processes, self.kubectl())

    def _all(self, factory: ComponentFactory) -> Iterator[Component]:
        nodes = self.placed()
        yield from (factory.registry(), factory.etcd(), factory.apiserver(), *factory.controllers())
        yield from factory.services(nodes[0].node.name)
        for placed in nodes:
            yield from (factory.containerd(placed), factory.kubelet(placed))
            if placed.node.host_gpus:
                yield factory.device_plugin(placed)

    def _with_gpus(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Look for the machine's GPUs, and build what hands them to pods, where a node is to have them."""
        if not any(node.host_gpus for node in nodes):
            return nodes
        gpus = find_host_gpus()
        complete = [with_host_gpus(node, gpus) for node in nodes]
        preflight.ensure_packages(self.log, preflight.COMPILER)
        build.ensure_module(self.layout, build.NVIDIA, self.log)
        return complete

    def _record(self, nodes: Sequence[PlacedNode]) -> None:
        write(self.layout.nodes, json.dumps([to_record(placed) for placed in nodes]))

    def _bring_up(self, factory: ComponentFactory, nodes: Sequence[PlacedNode], surplus: Sequence[PlacedNode]) -> None:
        manager = self._nodes(factory)
        host.remember(self.layout)
        host.enable_forwarding()
        network.ensure(self.network)
        self.layout.registry.mkdir(parents=True, exist_ok=True)
        self.processes.ensure(factory.registry())
        for placed in nodes:
            manager.start_containerd(placed)
        control_plane.ensure(factory, self.processes, self.log)
        for placed in surplus:
            manager.delete(placed)
            self.log(f"node {placed.node.name} removed")
        for placed in nodes:
            manager.start_kubelet(placed)
        manager.kubectl.apply(addons(self.network))
        for placed in nodes:
            manager.wait_ready(placed)
            self.log(f"node {placed.node.name} ready")
        control_plane.ensure_services(factory, self.processes, manager.kubectl, nodes[0].node.name)
        self.log(f"cluster ready: export KUBECONFIG={self.layout.kubeconfig}")

    def _take_down(self) -> None:
        nodes = self.placed()
        for placed in nodes:
            self.processes.stop(f"kubelet@{placed.node.name}", force=True)
        for name in self.processes.names():
            if not name.startswith("containerd@"):
                # By force: etcd's data is thrown away, and a graceful API server takes half a minute.
                self.processes.stop(name, force=True)
        self.log("control plane stopped")
        manager = self._nodes(ComponentFactory(self.layout, self.network, build.programs(self.layout)))
        for placed in nodes:
            manager.clear(placed)
        leftovers.kill_programs(self.layout)
        cgroups.remove()
        network.remove(self.network)
        host.restore(self.layout)
        self._keep_logs()
        leftovers.remove_tree(self.layout.state)
        self.log("cluster removed; pushed images and built programs stay")

    def _keep_logs(self) -> None:
        if self.layout.logs.is_dir():
            shutil.rmtree(self.layout.last_logs, ignore_errors=True)
            self.layout.logs.rename(self.layout.last_logs)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one command at a time change the cluster."""
        self.layout.root.mkdir(parents=True, exist_ok=True)
        with (self.layout.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.log("waiting for another devcluster command")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
