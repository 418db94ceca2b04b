"""The Deployment of one revision on one target: Triton, read-only from the store."""

from dataclasses import dataclass

from diffusion_operator import digests, naming
from diffusion_operator.api.base import Resources
from diffusion_operator.api.spec import Serving, Target
from diffusion_operator.manifests.common import (
    STORE_PATH,
    TERMINATION_LOG,
    JsonObject,
    Owner,
    Placement,
    container_basics,
    metadata,
    pod_basics,
    store_mount,
    store_volume,
)
from diffusion_operator.manifests.service import PORTS
from diffusion_operator.settings import Settings

# Endpoints lose the pod while it sleeps, then the server finishes what it has; an idle keep-alive connection makes
# it wait for the whole timeout.
DRAIN_SECONDS = 5
EXIT_TIMEOUT_SECONDS = 20
SHARED_MEMORY = "512Mi"
ADMIN_APIS = "model-repository,logging,shared-memory,trace"
VERIFY_RESOURCES = Resources(requests={"cpu": "100m", "memory": "128Mi"})


@dataclass(frozen=True)
class ServingRequest:
    """All that decides the pods of one target.

    Attributes:
        target: of the spec.
        serving: of the spec.
        repository: digest of the Triton model repository in the store.
        claim: that holds the store.
    """

    target: Target
    serving: Serving
    repository: str
    claim: str


def revision(request: ServingRequest, owner: Owner, settings: Settings) -> str:
    """Digest of everything that the pods are; the number of pods is not part of it."""
    return digests.revision(_pod(request, owner, settings))


def deployment(request: ServingRequest, owner: Owner, settings: Settings, replicas: int) -> JsonObject:
    """The Deployment; apart from `replicas` it never changes, since its name holds the revision."""
    revision_id = revision(request, owner, settings)
    selector = {
        naming.PIPELINE: owner.name,
        naming.TARGET: request.target.name,
        naming.REVISION: revision_id,
    }
    labels = {**naming.common_labels(owner.name, naming.SERVING), **selector}
    head = metadata(naming.revision(owner.name, request.target.name, revision_id), owner, labels)
    head["annotations"] = {naming.REPOSITORY: request.repository}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": head,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 1800,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": _pod(request, owner, settings)},
        },
    }


def _pod(request: ServingRequest, owner: Owner, settings: Settings) -> JsonObject:
    image = request.serving.image or settings.serving_image
    placement = Placement(
        tuple(sorted((request.target.node_selector or {}).items())), tuple(request.target.tolerations or ())
    )
    return {
        **pod_basics(settings, placement),
        "terminationGracePeriodSeconds": DRAIN_SECONDS + EXIT_TIMEOUT_SECONDS + 5,
        "initContainers": [_verify(request, image, settings)],
        "containers": [_server(request, owner, image, settings)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
            store_volume(request.claim, read_only=True),
        ],
    }


def _verify(request: ServingRequest, image: str, settings: Settings) -> JsonObject:
    """Nothing is served from files whose SHA-256 is not the one that was built."""
    container = container_basics("verify", image, settings.image_pull_policy, VERIFY_RESOURCES)
    container["command"] = ["python3", "-m", "diffusion_builder", "verify", "--store", STORE_PATH]
    container["command"] += ["--repository", request.repository, "--result", TERMINATION_LOG]
    container["env"] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own emptyDir
    container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}, store_mount(read_only=True)]  # noqa: S108
    return container


def _server(request: ServingRequest, owner: Owner, image: str, settings: Settings) -> JsonObject:
    container = container_basics("triton", image, settings.image_pull_policy, request.target.resources)
    container["command"] = ["tritonserver"]
    container["args"] = [
        f"--model-repository={STORE_PATH}/repositories/{request.repository}/models",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        # Nobody outside knows a pod's UID, so nobody can use these; Triton has no plain switch for them.
        f"--http-restricted-api={ADMIN_APIS}:pod-uid=$(POD_UID)",
        f"--grpc-restricted-protocol={ADMIN_APIS}:pod-uid=$(POD_UID)",
        f"--exit-timeout-secs={EXIT_TIMEOUT_SECONDS}",
        "--allow-metrics=true",
    ]
    container["env"] = [
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "DIFFUSION_PIPELINE", "value": owner.name},
        *({"name": item.name, "value": item.value} for item in request.serving.env or ()),
    ]
    container["ports"] = [{"name": name, "containerPort": number} for name, number in PORTS]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}
    container["volumeMounts"] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - same
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the server's shared memory, a volume of the pod
        store_mount(read_only=True),
    ]
    return {**container, **_probes(request)}


def _probes(request: ServingRequest) -> JsonObject:
    """Ready only after every ensemble has answered a real request; from then on Triton's own word counts."""
    probe = ["python3", "-m", "diffusion_builder", "probe", "--url", "http://127.0.0.1:8000"]
    probe += ["--store", STORE_PATH, "--repository", request.repository]
    return {
        "startupProbe": {
            "exec": {"command": probe},
            "periodSeconds": 5,
            "timeoutSeconds": 120,
            "failureThreshold": 120,
        },
        "readinessProbe": {
            "httpGet": {"path": "/v2/health/ready", "port": "http"},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
        },
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }
