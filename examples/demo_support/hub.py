"""The demo's own model hub inside the cluster, as objects."""

from __future__ import annotations

import json
from typing import Any

NAME = "demo-hub"
PORT = 8000


def endpoint(namespace: str) -> str:
    """Base URL of the hub for pods."""
    return f"http://{NAME}.{namespace}.svc:{PORT}"


def manifest(namespace: str, image: str) -> str:
    """Return namespace, Deployment and Service of the hub, as one JSON list for kubectl."""
    labels = {"app.kubernetes.io/name": NAME}
    metadata = {"name": NAME, "namespace": namespace, "labels": labels}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod(labels, _hub(image))},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [_namespace(namespace), deployment, service]})


def _namespace(name: str) -> dict[str, Any]:
    # The strictest level that Kubernetes knows: everything that the operator makes has to live with it.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _hub(image: str) -> dict[str, Any]:
    return {
        "name": "hub",
        "image": image,
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    }


def pod(labels: dict[str, str], container: dict[str, Any]) -> dict[str, Any]:
    """Template of a pod with this container and no rights at all."""
    own = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    # A container's first process ignores SIGTERM, and these have nothing to finish.
    spec = {"automountServiceAccountToken": False, "securityContext": security, "terminationGracePeriodSeconds": 1}
    return {"metadata": {"labels": labels}, "spec": {**spec, "containers": [{**container, "securityContext": own}]}}
