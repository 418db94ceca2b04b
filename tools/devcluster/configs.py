"""Configuration files of the components, as text. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tools.devcluster.layout import NAME, PAUSE_IMAGE, Network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network

# Whom the chart makes when it is installed as the demo and the tests do.
OPERATOR = "system:serviceaccount:diffusion-operator:diffusion-operator"
CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class KubeconfigParts:
    """Contents (PEM) of what a kubeconfig holds."""

    server: str
    authority: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class NodeFolders:
    """Folders of one node; ``run`` is short, for sockets, and ``name`` is the node's."""

    name: str
    home: Path
    run: Path

    @property
    def containerd_socket(self) -> Path:
        """Socket of the node's containerd."""
        return self.run / "containerd.sock"

    @property
    def kubelet(self) -> Path:
        """The kubelet's root folder."""
        return self.home / "kubelet"

    @property
    def cni(self) -> Path:
        """The node's CNI configuration."""
        return self.home / "cni"

    @property
    def cgroup(self) -> str:
        """The node's cgroup in every hierarchy: two kubelets must not see each other's pods."""
        return f"/{NAME}/{self.name}"


def kubeconfig(parts: KubeconfigParts) -> str:
    """Render a kubeconfig that carries its certificates."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": parts.server, "certificate-authority-data": text(parts.authority)}
    user = {"client-certificate-data": text(parts.certificate), "client-key-data": text(parts.key)}
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "devcluster", "cluster": cluster}],
            "users": [{"name": "devcluster", "user": user}],
            "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "devcluster"}}],
            "current-context": "devcluster",
        }
    )


def audit_policy(users: Sequence[str] = (OPERATOR,)) -> str:
    """Render a policy that records who asked for what; leases, most of the traffic, only of these users."""
    leases = [{"group": "coordination.k8s.io", "resources": ["leases"]}]
    return _yaml(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "Metadata", "users": list(users), "resources": leases},
                {"level": "None", "resources": leases},
                {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
                {"level": "Metadata"},
            ],
        }
    )


def kubelet(folders: NodeFolders, network: Network, index: int, pki: tuple[Path, Path, Path]) -> str:
    """Render a KubeletConfiguration; ``pki`` is the client CA, the serving certificate and its key."""
    authority, certificate, key = map(str, pki)
    return _yaml(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": str(network.node_address(index)),
            "port": network.kubelet_port + index,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": network.kubelet_health_port + index,
            "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": authority}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": certificate,
            "tlsPrivateKeyFile": key,
            "containerRuntimeEndpoint": f"unix://{folders.containerd_socket}",
            "clusterDNS": [str(network.dns_service)],
            "clusterDomain": "cluster.local",
            "podLogsDir": str(folders.home / "pod-logs"),
            "volumePluginDir": str(folders.home / "volume-plugins"),
            **_kubelet_resources(folders),
        }
    )


def _kubelet_resources(folders: NodeFolders) -> dict[str, Any]:
    return {
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": folders.cgroup,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "failCgroupV1": False,
        # Nothing needs the kubelet's own chains, and they would be left behind.
        "makeIPTablesUtilChains": False,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }


def containerd(folders: NodeFolders, sockets: Path, registry_hosts: Path) -> str:
    """Render containerd's configuration (version 3); ``sockets`` is the short folder for shim sockets."""
    quote = json.dumps
    return f"""version = 3
root = {quote(str(folders.home / "containerd"))}
state = {quote(str(folders.home / "containerd-state"))}
# A machine may lack CAP_SYS_RESOURCE: nothing here may lower an OOM score.
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = {quote(str(folders.containerd_socket))}

[ttrpc]
address = {quote(str(folders.containerd_socket) + ".ttrpc")}

[plugins."io.containerd.shim.v1.manager"]
socket_dir = {quote(str(sockets))}

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
# Layers are kept unpacked only.
discard_unpacked_layers = true

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {quote(PAUSE_IMAGE)}

[plugins."io.containerd.cri.v1.images".registry]
config_path = {quote(str(registry_hosts))}

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cdi_spec_dirs = []

[plugins."io.containerd.cri.v1.runtime".cni]
# The plugin would leave a record per pod in /var/lib/cni.
use_internal_loopback = true
bin_dirs = [{quote(str(CNI_PLUGINS))}]
conf_dir = {quote(str(folders.cni))}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = {quote(str(folders.home / "runc"))}
"""


def registry_hosts(address: str) -> str:
    """Render containerd's hosts.toml for the registry, which speaks plain HTTP on the loopback."""
    return f'server = "http://{address}"\n\n[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n'


def registry(storage: Path, address: str) -> str:
    """Render the configuration of docker-registry."""
    return _yaml(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
            "http": {"addr": address},
        }
    )


def cni(pods: IPv4Network, leases: Path) -> str:
    """Render the CNI network of one node.

    Every pod hangs on its own routed link (ptp): all its packets pass the machine's netfilter, so Services
    work between pods of one node without br_netfilter, and no bridge is left behind.
    """
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": str(pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(leases),
    }
    plugin = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam}
    return json.dumps({"cniVersion": "1.0.0", "name": NAME, "plugins": [plugin]}, indent=1)


def proxy(kubeconfig_path: Path, network: Network, node: str) -> str:
    """Render kube-proxy's configuration. One kube-proxy serves all nodes: they share one network stack."""
    return _yaml(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            # Tables of its own: Docker, kind and k3s on the same machine keep theirs.
            "mode": "nftables",
            "bindAddress": str(network.control),
            "hostnameOverride": node,
            "clusterCIDR": str(network.pods),
            "clientConnection": {"kubeconfig": str(kubeconfig_path)},
            "healthzBindAddress": f"127.0.0.1:{network.proxy_health_port}",
            "metricsBindAddress": f"127.0.0.1:{network.proxy_metrics_port}",
            # The machine's connection tracking and loopback routing stay as they are.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "nftables": {"minSyncPeriod": "0s"},
        }
    )


def corefile(kubeconfig_path: Path, network: Network, upstream: str) -> str:
    """Render CoreDNS's configuration; ``upstream`` is a resolv.conf with name servers, or empty."""
    forward = f"    forward . {upstream}\n" if upstream else ""
    return (
        f".:{network.dns_port} {{\n"
        f"    bind {network.control}\n"
        "    errors\n"
        f"    health 127.0.0.1:{network.dns_health_port}\n"
        f"    ready 127.0.0.1:{network.dns_ready_port}\n"
        "    kubernetes cluster.local in-addr.arpa ip6.arpa {\n"
        f"        kubeconfig {kubeconfig_path}\n"
        "        pods insecure\n"
        "        fallthrough in-addr.arpa ip6.arpa\n"
        "        ttl 5\n"
        "    }\n"
        f"{forward}"
        "    cache 5\n"
        "}\n"
    )


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False)
