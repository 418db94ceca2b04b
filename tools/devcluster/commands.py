"""Command lines of the components. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.devcluster.pki import FRONT_PROXY
from tools.devcluster.processes import Component

if TYPE_CHECKING:
    from tools.devcluster.configs import NodeFolders
    from tools.devcluster.layout import Layout, Network
    from tools.devcluster.nodes import Node, PlacedNode
    from tools.devcluster.pki import Pair

REGISTRY_PROGRAM = Path("/usr/bin/docker-registry")
PROVISIONER = "diffusion-operator.io/devcluster"


@dataclass(frozen=True)
class ApiServerKeys:
    """Certificates and keys that the API server reads."""

    cluster_authority: Pair
    etcd_authority: Pair
    front_proxy_authority: Pair
    serving: Pair
    etcd_client: Pair
    kubelet_client: Pair
    front_proxy_client: Pair
    service_accounts: Path


@dataclass(frozen=True)
class Identity:
    """Whom a controller is towards the API server, and what it shows to those who ask for its health."""

    kubeconfig: Path
    serving: Pair

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that the controller manager and the scheduler have in common."""
        return (
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={self.serving.certificate}",
            f"--tls-private-key-file={self.serving.key}",
            "--leader-elect=false",
            "--profiling=false",
        )


@dataclass(frozen=True)
class Commands:
    """Makes components; ``kube`` is the one binary that holds them, ``runtime`` containerd's folder."""

    layout: Layout
    network: Network
    kube: Path
    runtime: Path

    def etcd(self, authority: Pair, serving: Pair) -> Component:
        """Return etcd: loopback only, certificates required, no fsync (``down`` throws its data away)."""
        url = f"https://127.0.0.1:{self.network.etcd_port}"
        return self._kube(
            "etcd",
            f"--data-dir={self.layout.state / 'etcd'}",
            "--name=devcluster",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls=http://127.0.0.1:{self.network.etcd_peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self.network.etcd_peer_port}",
            f"--initial-cluster=devcluster=http://127.0.0.1:{self.network.etcd_peer_port}",
            "--client-cert-auth",
            f"--trusted-ca-file={authority.certificate}",
            f"--cert-file={serving.certificate}",
            f"--key-file={serving.key}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def apiserver(self, keys: ApiServerKeys, audit_policy: Path) -> Component:
        """Return kube-apiserver."""
        return self._kube(
            "kube-apiserver",
            f"--bind-address={self.network.control}",
            f"--advertise-address={self.network.control}",
            f"--secure-port={self.network.apiserver_port}",
            f"--service-cluster-ip-range={self.network.services}",
            f"--cert-dir={self.layout.state / 'apiserver'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
            f"--audit-policy-file={audit_policy}",
            f"--audit-log-path={self.layout.logs / 'audit.log'}",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=1",
            *_apiserver_keys(keys, f"https://127.0.0.1:{self.network.etcd_port}"),
        )

    def controller_manager(self, identity: Identity, authority: Pair, service_accounts: Path) -> Component:
        """Return kube-controller-manager. Pod subnets are planned here, not by the node IPAM controller."""
        return self._kube(
            "kube-controller-manager",
            *identity.flags,
            f"--secure-port={self.network.controller_manager_port}",
            f"--root-ca-file={authority.certificate}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.key}",
            f"--service-account-private-key-file={service_accounts}",
            "--use-service-account-credentials",
            f"--flex-volume-plugin-dir={self.layout.state / 'volume-plugins'}",
        )

    def scheduler(self, identity: Identity) -> Component:
        """Return kube-scheduler."""
        return self._kube(
            "kube-scheduler",
            *identity.flags,
            f"--secure-port={self.network.scheduler_port}",
        )

    def proxy(self, config: Path) -> Component:
        """Return kube-proxy."""
        return self._kube("kube-proxy", f"--config={config}", inputs=(config,))

    def dns(self, corefile: Path) -> Component:
        """Return CoreDNS."""
        return self._kube("coredns", f"-conf={corefile}", inputs=(corefile,))

    def volume_provisioner(self, kubeconfig: Path, storage_class: str) -> Component:
        """Return the provisioner of the shared StorageClass."""
        return self._kube(
            "volume-provisioner",
            f"-kubeconfig={kubeconfig}",
            f"-provisioner={PROVISIONER}",
            f"-class={storage_class}",
            f"-root={self.layout.volumes}",
        )

    def registry(self, config: Path) -> Component:
        """Return the image registry."""
        return Component("registry", (str(REGISTRY_PROGRAM), "serve", str(config)), inputs=(config,))

    def containerd(self, node: str, config: Path) -> Component:
        """Return a node's containerd; its shim is found on PATH."""
        path = f"{self.runtime}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        argv = (str(self.runtime / "containerd"), f"--config={config}", "--log-level=warn")
        return Component(f"containerd@{node}", argv, {"PATH": path}, (config,))

    def kubelet(self, placed: PlacedNode, folders: NodeFolders, config: Path, kubeconfig: Path) -> Component:
        """Return a node's kubelet."""
        labels = ",".join(f"{key}={value}" for key, value in sorted(placed.node.labels.items()))
        argv = (
            str(self.kube),
            "kubelet",
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={placed.node.name}",
            f"--node-ip={self.network.node_address(placed.index)}",
            f"--root-dir={folders.kubelet}",
            f"--cert-dir={folders.home / 'kubelet-pki'}",
            *([f"--node-labels={labels}"] if labels else []),
        )
        return Component(f"kubelet@{placed.node.name}", argv, inputs=(config,))

    def device_plugin(self, node: Node, programs: Path) -> Component:
        """Return NVIDIA's device plugin of a node with the machine's GPUs.

        Args:
            node: with the driver's folder.
            programs: folder of the plugin and of the program that containers' hooks run.
        """
        root = node.driver_root
        env = {
            "NVIDIA_DRIVER_ROOT": root,
            "DRIVER_ROOT_CTR_PATH": root,  # the plugin is no container here
            "NVIDIA_DEV_ROOT": "/",
            "NVIDIA_CDI_HOOK_PATH": str(programs / "nvidia-cdi-hook"),
            "DEVICE_LIST_STRATEGY": "cdi-cri",
            "MIG_STRATEGY": "none",
            **{f"{name}_ENABLED": "false" for name in ("GDRCOPY", "GDS", "MOFED")},
            **({"LD_LIBRARY_PATH": f"{root}/lib64:{root}/usr/lib64"} if root != "/" else {}),
        }
        return Component(f"device-plugin@{node.name}", (str(programs / "nvidia-device-plugin"),), env)

    def _kube(self, name: str, *flags: str, inputs: tuple[Path, ...] = ()) -> Component:
        return Component(name, (str(self.kube), name, *flags), inputs=inputs)


def _apiserver_keys(keys: ApiServerKeys, etcd: str) -> tuple[str, ...]:
    issuer = "https://kubernetes.default.svc.cluster.local"
    return (
        f"--etcd-servers={etcd}",
        f"--etcd-cafile={keys.etcd_authority.certificate}",
        f"--etcd-certfile={keys.etcd_client.certificate}",
        f"--etcd-keyfile={keys.etcd_client.key}",
        f"--client-ca-file={keys.cluster_authority.certificate}",
        f"--tls-cert-file={keys.serving.certificate}",
        f"--tls-private-key-file={keys.serving.key}",
        f"--kubelet-certificate-authority={keys.cluster_authority.certificate}",
        f"--kubelet-client-certificate={keys.kubelet_client.certificate}",
        f"--kubelet-client-key={keys.kubelet_client.key}",
        *front_proxy_flags(keys.front_proxy_authority, keys.front_proxy_client),
        f"--service-account-issuer={issuer}",
        f"--service-account-key-file={keys.service_accounts}",
        f"--service-account-signing-key-file={keys.service_accounts}",
    )


def front_proxy_flags(authority: Pair, client: Pair) -> tuple[str, ...]:
    """Return the flags with which the API server passes requests on to other API servers, for example of metrics."""
    return (
        f"--proxy-client-cert-file={client.certificate}",
        f"--proxy-client-key-file={client.key}",
        f"--requestheader-client-ca-file={authority.certificate}",
        f"--requestheader-allowed-names={FRONT_PROXY.user}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
    )
