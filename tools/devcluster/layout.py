"""Where everything is: folders, addresses, ports. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tools.common.errors import bad_input
from tools.common.paths import cache_directory

KUBERNETES = "1.36.3"
NAME = "diffusion-operator-devcluster"
PAUSE_IMAGE = "devcluster.local/pause:1"
STORAGE_CLASS = "shared"

_CONTROL = IPv4Address("10.212.0.1")
_FIRST_NODE = IPv4Address("10.212.0.10")
_CLUSTER = IPv4Network("10.208.0.0/13")
_PODS = IPv4Network("10.213.0.0/16")
_SERVICES = IPv4Network("10.214.0.0/16")

# A Unix socket's path ends at 107 bytes; the longest one below the root is a kubelet plugin's.
_LONGEST_BELOW_ROOT = len("/state/n15/kubelet/device-plugins/kubelet.sock")
_SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class Layout:
    """The one folder that holds the cluster, and /run for sockets (whose paths must be short)."""

    root: Path
    run: Path = Path("/run") / NAME

    @property
    def bin(self) -> Path:
        """Programs, one folder per content key."""
        return self.root / "bin"

    @property
    def tools(self) -> Path:
        """Links to kubectl, helm and ctr, for PATH."""
        return self.root / "bin" / "tools"

    @property
    def state(self) -> Path:
        """What ``down`` throws away."""
        return self.root / "state"

    @property
    def logs(self) -> Path:
        """Logs of the running cluster; ``down`` moves them to ``last_logs``."""
        return self.state / "logs"

    @property
    def last_logs(self) -> Path:
        """Logs of the cluster that was last taken down."""
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        """One record per running component."""
        return self.state / "processes"

    @property
    def config(self) -> Path:
        """Rendered configuration of the components."""
        return self.state / "config"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def registry(self) -> Path:
        """Pushed images; survives ``down``."""
        return self.root / "registry"

    @property
    def volumes(self) -> Path:
        """One directory per PersistentVolume."""
        return self.state / "volumes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def nodes(self) -> Path:
        """The list of nodes that the cluster was last brought up with."""
        return self.state / "nodes.json"


@dataclass(frozen=True)
class Network:
    """Addresses and ports, away from the defaults of kind, k3s and kubeadm on the same machine."""

    device: str = "dop-br0"
    control: IPv4Address = _CONTROL
    first_node: IPv4Address = _FIRST_NODE
    cluster: IPv4Network = _CLUSTER
    pods: IPv4Network = _PODS
    services: IPv4Network = _SERVICES
    apiserver_port: int = 16443
    etcd_port: int = 12379
    etcd_peer_port: int = 12380
    controller_manager_port: int = 11257
    scheduler_port: int = 11259
    kubelet_port: int = 17100
    kubelet_health_port: int = 17200
    proxy_health_port: int = 17256
    proxy_metrics_port: int = 17249
    dns_port: int = 10053
    dns_health_port: int = 18080
    dns_ready_port: int = 18181
    registry_port: int = 15000

    @property
    def api_service(self) -> IPv4Address:
        """Address of the Service ``kubernetes``."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """Address of the Service ``kube-dns``."""
        return self.services[10]

    @property
    def registry(self) -> str:
        """``host:port`` of the image registry, the same on the host and on every node."""
        return f"127.0.0.1:{self.registry_port}"

    @property
    def apiserver(self) -> str:
        """URL of the API server."""
        return f"https://{self.control}:{self.apiserver_port}"

    def node_address(self, index: int) -> IPv4Address:
        """Return the InternalIP of a node."""
        return self.first_node + index

    def node_pods(self, index: int) -> IPv4Network:
        """Return the pod subnet of a node (a /24 of ``pods``)."""
        return IPv4Network((int(self.pods.network_address) + (index << 8), 24))


def default_root() -> Path:
    """Return the cluster's folder in the cache."""
    return cache_directory() / "devcluster"


def layout_at(root: Path) -> Layout:
    """Return the layout below ``root``.

    Raises:
        ToolError: The path is too long for the Unix sockets below it.
    """
    room = _SOCKET_PATH_LIMIT - _LONGEST_BELOW_ROOT
    if len(str(root)) > room:
        raise bad_input(
            f"the folder {root} has {len(str(root))} characters; sockets below it allow {room}",
            do="set DIFFUSION_OPERATOR_CACHE to a shorter path",
        )
    return Layout(root)
