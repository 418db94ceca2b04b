"""Certificates, kubeconfigs and configuration files on disk, and the components that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.files import write
from tools.devcluster import configs
from tools.devcluster.addons import DNS_USER, PROVISIONER_USER, PROXY_USER
from tools.devcluster.commands import ApiServerKeys, Commands, Identity
from tools.devcluster.configs import KubeconfigParts, NodeFolders
from tools.devcluster.layout import STORAGE_CLASS, Layout, Network
from tools.devcluster.pki import FRONT_PROXY, Pair, Pki, Subject

if TYPE_CHECKING:
    from tools.devcluster.build import Programs
    from tools.devcluster.nodes import PlacedNode
    from tools.devcluster.processes import Component

_API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
_MASTERS = ("system:masters",)
_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True)
class ComponentFactory:
    """Writes what components read, only where it is missing or different, and describes the components."""

    layout: Layout
    network: Network
    programs: Programs

    @property
    def pki(self) -> Pki:
        """The cluster's certificates."""
        return Pki(self.layout.pki)

    @property
    def commands(self) -> Commands:
        """The cluster's command lines."""
        return Commands(self.layout, self.network, self.programs.devcluster_kube, self.programs.runtime)

    def folders(self, placed: PlacedNode) -> NodeFolders:
        """Return a node's folders."""
        place = f"n{placed.index}"
        return NodeFolders(placed.node.name, self.layout.state / place, self.layout.run / place)

    def admin(self) -> Pair:
        """Return the administrator's certificate, after writing the kubeconfig that carries it."""
        subject = Subject("devcluster-admin", _MASTERS)
        self._kubeconfig("admin", subject, self.layout.kubeconfig)
        return self.pki.issue("admin", subject)

    def registry(self) -> Component:
        """Return the image registry."""
        text = configs.registry(self.layout.registry, self.network.registry)
        return self.commands.registry(self._config("registry.yaml", text))

    def etcd(self) -> Component:
        """Return etcd, with an authority of its own: no cluster certificate opens it."""
        serving = self.pki.issue("etcd", Subject("etcd", hosts=("127.0.0.1",)), "etcd")
        return self.commands.etcd(self.pki.authority("etcd"), serving)

    def apiserver(self) -> Component:
        """Return kube-apiserver."""
        policy = self._config("audit-policy.yaml", configs.audit_policy())
        return self.commands.apiserver(self._apiserver_keys(), policy)

    def controllers(self) -> list[Component]:
        """Return kube-controller-manager and kube-scheduler."""
        authority, tokens = self.pki.authority("cluster"), self.pki.service_account_key()
        manager, scheduler = map(self._identity, ("kube-controller-manager", "kube-scheduler"))
        return [
            self.commands.controller_manager(manager, authority, tokens),
            self.commands.scheduler(scheduler),
        ]

    def services(self, first_node: str) -> list[Component]:
        """Return kube-proxy, CoreDNS and the volume provisioner."""
        proxy = self._kubeconfig("kube-proxy", Subject(PROXY_USER))
        dns = self._kubeconfig("coredns", Subject(DNS_USER))
        volumes = self._kubeconfig("volume-provisioner", Subject(PROVISIONER_USER))
        return [
            self.commands.proxy(self._config("kube-proxy.yaml", configs.proxy(proxy, self.network, first_node))),
            self.commands.dns(self._config("Corefile", configs.corefile(dns, self.network, _upstream()))),
            self.commands.volume_provisioner(volumes, STORAGE_CLASS),
        ]

    def containerd(self, placed: PlacedNode) -> Component:
        """Return a node's containerd."""
        folders = self.folders(placed)
        folders.run.mkdir(parents=True, exist_ok=True)
        hosts = self.layout.config / "registries"
        write(hosts / self.network.registry / "hosts.toml", configs.registry_hosts(self.network.registry))
        cni = configs.cni(self.network.node_pods(placed.index), folders.home / "cni-leases")
        write(folders.cni / "10-devcluster.conflist", cni)
        text = configs.containerd(folders, self.layout.run / "s", hosts)
        path = folders.home / "containerd.toml"
        write(path, text)
        return self.commands.containerd(placed.node.name, path)

    def kubelet(self, placed: PlacedNode) -> Component:
        """Return a node's kubelet."""
        folders, name = self.folders(placed), placed.node.name
        address = str(self.network.node_address(placed.index))
        subject = Subject(f"system:node:{name}", ("system:nodes",), (name, address))
        pair = self.pki.issue(f"node-{name}-{placed.index}", subject)
        authority = self.pki.authority("cluster").certificate
        pki = (authority, pair.certificate, pair.key)
        path = folders.home / "kubelet.yaml"
        write(path, configs.kubelet(folders, self.network, placed.index, pki))
        kubeconfig = folders.home / "kubeconfig"
        write(kubeconfig, self._kubeconfig_text(pair), 0o600)
        return self.commands.kubelet(placed, folders, path, kubeconfig)

    def device_plugin(self, placed: PlacedNode) -> Component:
        """Return the device plugin of a node with the machine's GPUs."""
        return self.commands.device_plugin(placed.node, self.programs.nvidia)

    def _apiserver_keys(self) -> ApiServerKeys:
        addresses = (str(self.network.control), str(self.network.api_service), "127.0.0.1", "localhost")
        hosts = (*addresses, *_API_NAMES, f"{_API_NAMES[-1]}.cluster.local")
        issue = self.pki.issue
        return ApiServerKeys(
            cluster_authority=self.pki.authority("cluster"),
            etcd_authority=self.pki.authority("etcd"),
            front_proxy_authority=self.pki.authority("front-proxy"),
            serving=issue("apiserver", Subject("kube-apiserver", hosts=hosts)),
            etcd_client=issue("apiserver-etcd", Subject("kube-apiserver"), "etcd"),
            kubelet_client=issue("apiserver-kubelet", Subject("kube-apiserver-kubelet-client", _MASTERS)),
            front_proxy_client=issue("front-proxy", FRONT_PROXY, "front-proxy"),
            service_accounts=self.pki.service_account_key(),
        )

    def _identity(self, name: str) -> Identity:
        subject = Subject(f"system:{name}", hosts=("127.0.0.1",))
        return Identity(self._kubeconfig(name, subject), self.pki.issue(name, subject))

    def _kubeconfig(self, name: str, subject: Subject, path: Path | None = None) -> Path:
        path = path or self.layout.config / f"{name}.kubeconfig"
        write(path, self._kubeconfig_text(self.pki.issue(name, subject)), 0o600)
        return path

    def _kubeconfig_text(self, pair: Pair) -> str:
        authority = self.pki.authority("cluster").certificate.read_bytes()
        certificate, key = pair.certificate.read_bytes(), pair.key.read_bytes()
        return configs.kubeconfig(KubeconfigParts(self.network.apiserver, authority, certificate, key))

    def _config(self, name: str, text: str) -> Path:
        path = self.layout.config / name
        write(path, text)
        return path


def _upstream() -> str:
    """Return the machine's resolv.conf if it names a server that is no stub on the loopback."""
    lines = _RESOLV_CONF.read_text().splitlines() if _RESOLV_CONF.is_file() else []
    servers = [line.split()[1] for line in lines if line.startswith("nameserver ") and line.split()[1:]]
    return str(_RESOLV_CONF) if servers and not any(s.startswith("127.") for s in servers) else ""
