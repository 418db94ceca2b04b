"""Definitions of other projects' APIs, as much of them as the operator uses."""

from __future__ import annotations

from functools import partial

from tests.support.cluster.kube import Kube, KubectlError, Object, eventually

_SECONDS = 120.0

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


def serve_foreign_apis(kube: Kube) -> None:
    """Define other people's APIs, and wait until the API server serves all of them."""
    definitions = [definition(*one) for one in FOREIGN_CRDS]
    kube.apply(*definitions)
    for crd in definitions:
        eventually(partial(_is_served, kube, crd), _SECONDS, f"{crd['metadata']['name']} is served")


def _is_served(kube: Kube, crd: Object) -> bool:
    """Also after a definition is established, its storage takes a moment."""
    try:
        kube.list(crd["metadata"]["name"])
    except KubectlError:
        return False
    return True
