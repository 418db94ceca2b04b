"""Definitions of other projects' APIs, as much of them as the operator uses."""

from __future__ import annotations

from tests.support.cluster.kube import Kube, Object, condition

# As much of other people's APIs as the operator sees of them: group, version, kind.
FOREIGN_CRDS = (
    ("keda.sh", "v1alpha1", "ScaledObject"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
    ("gateway.networking.k8s.io", "v1", "GRPCRoute"),
)


def definition(group: str, version: str, kind: str) -> Object:
    """A definition that takes everything."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    # The API server wants to know that somebody of Kubernetes has seen a group that ends like this.
    annotations = {"api-approved.kubernetes.io": "unapproved, of a test"}
    versions = [{"name": version, "served": True, "storage": True, "schema": schema}]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": annotations},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
    }


def established(kube: Kube, crd: Object) -> bool:
    live_crd = kube.get("crd", crd["metadata"]["name"])
    return condition(live_crd, "Established").get("status") == "True"
