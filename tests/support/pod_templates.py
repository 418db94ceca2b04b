"""`spec.jobs`, and what a podTemplate may add to pods; with the API server's answer."""

from __future__ import annotations

from typing import Any

SIDECAR = {
    "name": "agent",
    "image": "agent:1",
    "volumeMounts": [{"name": "store", "mountPath": "/s", "readOnly": True}],
}
SIDECAR_OF_API = {"name": "agent", "image": "agent:1"}
EVERYTHING: dict[str, Any] = {
    "metadata": {"labels": {"owner": "imaging"}, "annotations": {"prometheus.io/scrape": "true"}},
    "spec": {
        "containers": [SIDECAR],
        "initContainers": [{"name": "certificates", "image": "certificates:1", "restartPolicy": "Always"}],
        "volumes": [{"name": "cache", "emptyDir": {}}, {"name": "ca-bundle", "configMap": {"name": "ca"}}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub.example"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        "imagePullSecrets": [{"name": "agents"}],
        "schedulerName": "volcano",
        "runtimeClassName": "gvisor",
    },
}


def own(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of a container
    return {"spec": {"containers": [{"name": "triton", **fields}]}}


def added(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of a container
    return {"spec": {"containers": [{"name": "x", "image": "x:1", **fields}]}}


REFUSED_TEMPLATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "image": (own(image="x"), "spec.containers[0].image", "env, envFrom and volumeMounts can be added"),
    "command": (own(command=["x"]), "spec.containers[0].command", "env, envFrom and volumeMounts can be added"),
    "arguments": (own(args=["x"]), "spec.containers[0].args", "env, envFrom and volumeMounts can be added"),
    "security context": (
        own(securityContext={}),
        "spec.containers[0].securityContext",
        "env, envFrom and volumeMounts can be added",
    ),
    "probe": (own(readinessProbe={}), "spec.containers[0]", "env, envFrom and volumeMounts can be added"),
    "reserved variable": (
        own(env=[{"name": "POD_UID", "value": "0"}]),
        "spec.containers[0].env",
        "itself: use another name",
    ),
    "mount over the store": (
        own(volumeMounts=[{"name": "a", "mountPath": "/store"}]),
        "spec.containers[0].volumeMounts",
        "mounts its own volumes at",
    ),
    "mount below the store": (
        own(volumeMounts=[{"name": "a", "mountPath": "/store/blobs"}]),
        "spec.containers[0].volumeMounts",
        "mounts its own volumes at",
    ),
    "another mount of the store": (
        own(volumeMounts=[{"name": "store", "mountPath": "/s"}]),
        "spec.containers[0].volumeMounts",
        "mounts its own volumes at",
    ),
    "another spelling of a path": (
        own(volumeMounts=[{"name": "a", "mountPath": "/x/../store"}]),
        "spec.containers[0].volumeMounts[0].mountPath",
        "should match",
    ),
    "no image": (
        {"spec": {"containers": [{"name": "x"}]}},
        "spec.containers[0].name",
        "an added container needs an image",
    ),
    "the container of a Job": (
        {"spec": {"containers": [{"name": "build"}]}},
        "spec.containers",
        "the operator's container here is triton",
    ),
    "an init container among containers": (
        {"spec": {"containers": [{"name": "verify"}]}},
        "spec.containers",
        "the operator's container here is triton",
    ),
    "two of one name": ({"spec": {"containers": [SIDECAR, SIDECAR]}}, "spec.containers", "Duplicate"),
    "writing to the store": (
        added(volumeMounts=[{"name": "store", "mountPath": "/s"}]),
        "spec.containers[0].volumeMounts",
        "can mount only store",
    ),
    "the token's volume": (
        added(volumeMounts=[{"name": "token", "mountPath": "/s", "readOnly": True}]),
        "spec.containers[0].volumeMounts",
        "can mount only store",
    ),
    "root": (
        added(securityContext={"runAsUser": 0}),
        "spec.containers[0].securityContext.runAsUser",
        "greater than or equal to 1",
    ),
    "privileged": (
        added(securityContext={"privileged": True}),
        "spec.containers[0].securityContext.privileged",
        "Unsupported value",
    ),
    "capabilities": (
        added(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}),
        "spec.containers[0].securityContext.capabilities.add[0]",
        "Unsupported value",
    ),
    "a port of the node": (
        added(ports=[{"containerPort": 80, "hostPort": 80}]),
        "spec.containers[0].ports[0].hostPort",
        "unknown field",
    ),
    "a path of the node": (
        {"spec": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}},
        "spec.volumes[0].hostPath",
        "no files of the node",
    ),
    "a volume of no kind": ({"spec": {"volumes": [{"name": "a"}]}}, "spec.volumes[0]", "exactly one of configMap"),
    "a volume of two kinds": (
        {"spec": {"volumes": [{"name": "a", "emptyDir": {}, "csi": {}}]}},
        "spec.volumes[0]",
        "exactly one of configMap",
    ),
    "the operator's volume": (
        {"spec": {"volumes": [{"name": "shm", "emptyDir": {}}]}},
        "spec.volumes[0].name",
        "operator's volumes are",
    ),
    "service account": ({"spec": {"serviceAccountName": "admin"}}, "spec.serviceAccountName", "serviceAccount.build"),
    "token": (
        {"spec": {"automountServiceAccountToken": True}},
        "spec.automountServiceAccountToken",
        "serviceAccount.build",
    ),
    "users": ({"spec": {"securityContext": {"fsGroup": 0}}}, "spec.securityContext", "runAs"),
    "the node's network": ({"spec": {"hostNetwork": True}}, "spec.hostNetwork", "no access to the node"),
    "the node's processes": ({"spec": {"hostPID": False}}, "spec.hostPID", "no access to the node"),
    "restart policy": ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy", "its own work depends on it"),
    "drain": (
        {"spec": {"terminationGracePeriodSeconds": 1}},
        "spec.terminationGracePeriodSeconds",
        "its own work depends on it",
    ),
    "a node": ({"spec": {"nodeName": "a"}}, "spec.nodeName", "targets[].nodeSelector"),
    "node labels": ({"spec": {"nodeSelector": {"a": "b"}}}, "spec.nodeSelector", "targets[].nodeSelector"),
    "the operator's label": (
        {"metadata": {"labels": {"diffusion-operator.io/target": "x"}}},
        "metadata.labels",
        "belong to the operator",
    ),
    "its annotation": (
        {"metadata": {"annotations": {"diffusion-operator.io/rollout": "x"}}},
        "metadata.annotations",
        "belong to the operator",
    ),
    "a priority": ({"spec": {"priorityClassName": "high"}}, "spec.priorityClassName", "targets[].priorityClassName"),
    "an operator's init container without its place": (
        {"spec": {"initContainers": [{"name": "triton"}]}},
        "spec.initContainers",
        "the operator's container here is verify",
    ),
    "capabilities that stay": (
        added(securityContext={"capabilities": {"drop": ["NET_RAW"]}}),
        "spec.containers[0].securityContext.capabilities.drop",
        "add ALL",
    ),
    "a malformed annotation": (
        {"metadata": {"annotations": {"ä": "x"}}},
        "metadata.annotations",
        "the key of an annotation",
    ),
    "an unknown field": ({"spec": {"container": []}}, "spec.container", "unknown field"),
}
"""By name: a podTemplate of serving pods, the field that is named, and words of the API server."""

REFUSED_JOBS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a label of the nodes": ({"nodeSelector": {"süd": "1"}}, "nodeSelector", "the key of a label"),
    "the operator's label": ({"labels": {"diffusion-operator.io/stage": "fetch"}}, "labels", "belong to the operator"),
    "the operator's annotation": (
        {"annotations": {"diffusion-operator.io/result": "{}"}},
        "annotations",
        "belong to the operator",
    ),
    "an unknown affinity": ({"affinity": {"nodes": {}}}, "affinity.nodes", "unknown field"),
    "an unknown field": ({"arch": "amd64"}, "arch", "unknown field"),
    "the server's container": (
        {"podTemplate": {"spec": {"containers": [{"name": "triton"}]}}},
        "podTemplate.spec.containers",
        "the operator's container here is build",
    ),
    "the server's init container": (
        {"podTemplate": {"spec": {"initContainers": [{"name": "verify"}]}}},
        "podTemplate.spec.initContainers",
        "the operator's container here is images or scorer",
    ),
}
"""The same of `spec.jobs`."""

REFUSED_API: dict[str, tuple[dict[str, Any], str, str]] = {
    "image": (
        {"spec": {"containers": [{"name": "gateway", "image": "x"}]}},
        "spec.containers[0].image",
        "env, envFrom and volumeMounts can be added",
    ),
    "the server's container": (
        {"spec": {"containers": [{"name": "triton"}]}},
        "spec.containers",
        "the operator's container here is gateway",
    ),
    "an init container of the server": (
        {"spec": {"initContainers": [{"name": "verify"}]}},
        "spec.initContainers",
        "the operator has no container here",
    ),
    "mount over the keys": (
        {"spec": {"containers": [{"name": "gateway", "volumeMounts": [{"name": "a", "mountPath": "/keys"}]}]}},
        "spec.containers[0].volumeMounts",
        "mounts its own volumes at",
    ),
    "the keys in another container": (
        added(volumeMounts=[{"name": "keys", "mountPath": "/k", "readOnly": True}]),
        "spec.containers[0].volumeMounts",
        "can mount only store",
    ),
    "a node": ({"spec": {"nodeName": "a"}}, "spec.nodeName", "api.nodeSelector"),
}
"""The same of the images API's pods, with words of the operator."""
