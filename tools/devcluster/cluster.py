"""Bringing the whole cluster up and down."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.devcluster import build, cgroups, control_plane, host, leftovers, network, preflight
from tools.devcluster.addons import addons
from tools.devcluster.errors import DevclusterError, bad_input
from tools.devcluster.kubectl import Kubectl
from tools.devcluster.node import Nodes
from tools.devcluster.nodes import DEFAULT_NODES, Node, PlacedNode, from_record, place, removed, to_record
from tools.devcluster.processes import Component, Processes
from tools.devcluster.shell import write
from tools.devcluster.wiring import Wiring

if TYPE_CHECKING:
    from tools.devcluster.layout import Layout, Network

NODE_COMPONENTS = ("containerd", "kubelet")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """The cluster of one folder."""

    layout: Layout
    network: Network
    say: Say

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

    def up(self, wanted: Sequence[Node] | None) -> None:
        """Bring the cluster to the wanted nodes; None keeps the nodes that there are.

        Raises:
            DevclusterError: This machine lacks something, or a component did not become ready.
        """
        preflight.require_root()
        with self._lock():
            preflight.ensure_packages(self.say)
            if not self.is_up:
                preflight.require_rights(self.layout.root)
            wiring = Wiring(self.layout, self.network, build.ensure(self.layout, self.say))
            existing = self.placed()
            nodes = place(wanted or [p.node for p in existing] or DEFAULT_NODES, existing)
            gone = removed(nodes, existing)
            # Recorded before anything starts: whatever a kill leaves, `down` knows all of it.
            self._record((*nodes, *gone))
            self._bring_up(wiring, nodes, gone)
            self._record(nodes)

    def down(self) -> None:
        """Stop everything and leave nothing behind but programs, pushed images and the last logs."""
        preflight.require_root()
        with self._lock():
            if self.layout.state.is_dir():
                self._take_down()
            leftovers.remove_tree(self.layout.run)
            left = leftovers.remaining(self.layout, self.network)
        if left:
            raise DevclusterError("not everything could be removed", detail="\n".join(left), do="run down again")

    def build(self) -> None:
        """Build and install the programs, which needs no rights on the machine."""
        with self._lock():
            build.ensure(self.layout, self.say)

    def qualified(self, component: str, node: str | None) -> str:
        """Return a component's full name: ``kubelet`` of the only node is ``kubelet@cpu-0``."""
        nodes = self.placed()
        if component in NODE_COMPONENTS and node is None and len(nodes) == 1:
            node = nodes[0].node.name
        return f"{component}@{node}" if node else component

    def component(self, name: str) -> Component:
        """Return a component by name, such as ``kubelet@cpu-0``.

        Raises:
            DevclusterError: The cluster has no such component.
        """
        components = {component.name: component for component in self._all(self._wiring())}
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
                self._nodes(self._wiring()).wait_ready(placed)

    def kubectl(self) -> Kubectl:
        """Return kubectl with the administrator's rights."""
        return Kubectl(build.programs(self.layout).kubectl, self.layout.kubeconfig)

    def _wiring(self) -> Wiring:
        if not self.layout.nodes.is_file():
            raise bad_input("there is no cluster", do="python -m tools.devcluster up")
        return Wiring(self.layout, self.network, build.require_built(self.layout))

    def _nodes(self, wiring: Wiring) -> Nodes:
        return Nodes(wiring, self.processes, self.kubectl())

    def _all(self, wiring: Wiring) -> Iterator[Component]:
        nodes = self.placed()
        yield from (wiring.registry(), wiring.etcd(), wiring.apiserver(), *wiring.controllers())
        yield from wiring.services(nodes[0].node.name)
        for placed in nodes:
            yield from (wiring.containerd(placed), wiring.kubelet(placed))

    def _record(self, nodes: Sequence[PlacedNode]) -> None:
        write(self.layout.nodes, json.dumps([to_record(placed) for placed in nodes]))

    def _bring_up(self, wiring: Wiring, nodes: Sequence[PlacedNode], gone: Sequence[PlacedNode]) -> None:
        manager = self._nodes(wiring)
        host.remember(self.layout)
        host.enable_forwarding()
        network.ensure(self.network)
        self.layout.registry.mkdir(parents=True, exist_ok=True)
        self.processes.ensure(wiring.registry())
        for placed in nodes:
            manager.start_containerd(placed)
        control_plane.ensure(wiring, self.processes, self.say)
        for placed in gone:
            manager.take_away(placed)
            self.say(f"node {placed.node.name} removed")
        for placed in nodes:
            manager.start_kubelet(placed)
        manager.kubectl.apply(addons(self.network))
        for placed in nodes:
            manager.wait_ready(placed)
            self.say(f"node {placed.node.name} ready")
        control_plane.ensure_services(wiring, self.processes, manager.kubectl, nodes[0].node.name)
        self.say(f"cluster ready: export KUBECONFIG={self.layout.kubeconfig}")

    def _take_down(self) -> None:
        nodes = self.placed()
        for placed in nodes:
            self.processes.stop(f"kubelet@{placed.node.name}", force=True)
        for name in self.processes.names():
            if not name.startswith("containerd@"):
                # By force: etcd's data is thrown away, and a graceful API server takes half a minute.
                self.processes.stop(name, force=True)
        self.say("control plane stopped")
        manager = self._nodes(Wiring(self.layout, self.network, build.programs(self.layout)))
        for placed in nodes:
            manager.clear(placed)
        leftovers.kill_programs(self.layout)
        cgroups.remove()
        network.remove(self.network)
        host.restore(self.layout)
        self._keep_logs()
        leftovers.remove_tree(self.layout.state)
        self.say("cluster removed; pushed images and built programs stay")

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
                self.say("waiting for another devcluster command")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
