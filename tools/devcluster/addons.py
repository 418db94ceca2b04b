"""Objects that every cluster starts with. Pure."""

from __future__ import annotations

from typing import Any

from tools.devcluster.commands import PROVISIONER
from tools.devcluster.layout import STORAGE_CLASS, Network

DNS_USER = "devcluster:coredns"
PROVISIONER_USER = "devcluster:volume-provisioner"
PROXY_USER = "system:kube-proxy"
_RBAC = "rbac.authorization.k8s.io"

Manifest = dict[str, Any]


def addons(network: Network) -> list[Manifest]:
    """Return the StorageClass, the DNS Service and the permissions of our own components."""
    return [
        _storage_class(),
        *_dns(network),
        _dns_role(),
        _binding("devcluster-dns", "devcluster-dns", DNS_USER),
        _binding("devcluster-volume-provisioner", "system:persistent-volume-provisioner", PROVISIONER_USER),
        _binding("devcluster-proxy", "system:node-proxier", PROXY_USER),
    ]


def _storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def _dns(network: Network) -> list[Manifest]:
    """Return a Service without selector: CoreDNS is a process of the host, not a pod."""
    ports = [(protocol.lower(), protocol) for protocol in ("UDP", "TCP")]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": str(network.dns_service),
            "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
        },
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-devcluster",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(network.control)], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": network.dns_port, "protocol": protocol} for name, protocol in ports],
    }
    return [service, endpoints]


def _dns_role() -> Manifest:
    watch = ["list", "watch"]
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "devcluster-dns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": watch},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
        ],
    }


def _binding(name: str, role: str, user: str) -> Manifest:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
    }
