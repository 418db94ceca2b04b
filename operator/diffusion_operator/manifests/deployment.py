"""The Deployment of one revision on one target: Triton, read-only from the store."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from diffusion_contract.limits import HTTP_PORT
from diffusion_contract.resources import Resources
from diffusion_contract.spec import Serving, Target
from diffusion_contract.spec.serving import Tracing
from diffusion_operator import digests, naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import (
    STORE_PATH,
    TERMINATION_LOG,
    Owner,
    container_fields,
    metadata,
    placement_of,
    pod_fields,
    store_mount,
    store_volume,
    to_manifest,
    with_gpu,
)
from diffusion_operator.manifests.overlay import with_overlay
from diffusion_operator.manifests.service import PORTS
from diffusion_operator.manifests.store_node import HOST, StoreNode, with_store_node
from diffusion_operator.settings import Settings

# Endpoints lose the pod meanwhile: no new connections come.
MIN_DRAIN_SECONDS = 5
# The preStop hook ends as soon as nothing is computed any more, so a generous end costs nothing.
BASE_DRAIN_SECONDS, PER_STEP_DRAIN_SECONDS = 30, 2
# Nothing is left to finish then; an idle keep-alive connection makes the server wait for all of it.
EXIT_TIMEOUT_SECONDS = 5
TERMINATION_MARGIN_SECONDS = 10
GRPC_CONNECTION_SECONDS = 30
ZONE = "topology.kubernetes.io/zone"
SHARED_MEMORY = "512Mi"
ADMIN_APIS = "model-repository,logging,shared-memory,trace"
VERIFY_RESOURCES = Resources(requests={"cpu": "100m", "memory": "128Mi"})


@dataclass(frozen=True)
class RevisionSpec:
    """All that decides the pods of one target.

    Attributes:
        repository: digest of the Triton model repository in the store.
        max_steps: step count of the longest tier.
        flags: of the server, that this repository asks for.
        node: that all pods of the claim share; None when several nodes can mount it.
    """

    target: Target
    serving: Serving
    repository: str
    claim: str
    max_steps: int
    flags: tuple[str, ...] = ()
    node: StoreNode | None = None

    @property
    def drain_seconds(self) -> int:
        """How long a stopping pod may finish its requests."""
        return BASE_DRAIN_SECONDS + PER_STEP_DRAIN_SECONDS * self.max_steps


@dataclass(frozen=True)
class ServingRevision:
    """A revision whose pods are rendered.

    Attributes:
        name: digest of everything that the pods are; the number of pods is not part of it.
        head: metadata of the pods that the spec adds.
    """

    spec: RevisionSpec
    name: str
    pod: JsonObject
    head: JsonObject


def serving_revision(spec: RevisionSpec, owner: Owner, settings: Settings) -> ServingRevision:
    """Render the pods of one target."""
    template = with_overlay({"metadata": {}, "spec": _pod(spec, owner, settings)}, spec.serving.pod_template)
    head, pod = template["metadata"], with_store_node(template["spec"], spec.node)
    return ServingRevision(spec, digests.revision_digest({**template, "spec": pod} if head else pod), pod, head)


def deployment(
    revision: ServingRevision, owner: Owner, siblings: Mapping[str, str] | None = None, variant: str | None = None
) -> JsonObject:
    """The Deployment without its number of pods; its pods never change, since its name holds the revision.

    Args:
        revision: what is served.
        owner: the pipeline that it belongs to.
        siblings: revisions of all targets that are served together with this one.
        variant: of an experiment that the revision is created for.
    """
    target = revision.spec.target
    selector = {naming.PIPELINE: owner.name, naming.TARGET: target.name, naming.REVISION: revision.name}
    labels = {**(target.labels or {}), **naming.common_labels(owner.name, naming.SERVING), **selector}
    claim_labels = revision.spec.node.labels if revision.spec.node is not None else {}
    head = metadata(naming.revision_name(owner.name, target.name, revision.name), owner, labels)
    head["annotations"] = {naming.REPOSITORY: revision.spec.repository}
    if siblings:
        head["annotations"][naming.SIBLINGS] = json.dumps(dict(sorted(siblings.items())), separators=(",", ":"))
    if variant is not None:
        head["annotations"][naming.VARIANT] = variant
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": head,
        "spec": {
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 1800,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {**revision.head, "labels": {**labels, **claim_labels, **revision.head.get("labels", {})}},
                "spec": revision.pod,
            },
        },
    }


def _pod(spec: RevisionSpec, owner: Owner, settings: Settings) -> JsonObject:
    target = spec.target
    gpus = target.gpu.count if target.gpu is not None else 0
    placement = placement_of(target, gpus, target.priority_class_name, settings.gpu_label)
    image = spec.serving.image or settings.serving_image_for(placement.runtime)
    return {
        **pod_fields(settings, placement, settings.serving_service_account),
        "terminationGracePeriodSeconds": spec.drain_seconds + EXIT_TIMEOUT_SECONDS + TERMINATION_MARGIN_SECONDS,
        "topologySpreadConstraints": [_topology_spread(spec, owner, key) for key in (ZONE, HOST)],
        "initContainers": [_verify_container(spec, image, settings)],
        "containers": [with_gpu(_triton_container(spec, owner, image, settings), placement)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
            store_volume(spec.claim, read_only=True),
        ],
    }


def _topology_spread(spec: RevisionSpec, owner: Owner, key: str) -> JsonObject:
    """Apart where there is room; the hash keeps an older revision's pods out of the count."""
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {naming.PIPELINE: owner.name, naming.TARGET: spec.target.name}},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _verify_container(spec: RevisionSpec, image: str, settings: Settings) -> JsonObject:
    """Nothing is served from files whose SHA-256 is not the one that was built."""
    container = container_fields("verify", image, settings.image_pull_policy, VERIFY_RESOURCES)
    container["command"] = ["python3", "-m", "diffusion_builder", "verify", "--store", STORE_PATH]
    container["command"] += ["--repository", spec.repository, "--result", TERMINATION_LOG]
    container["env"] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own emptyDir
    container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}, store_mount(read_only=True)]  # noqa: S108
    return container


def _tracing(tracing: Tracing | None, owner: Owner) -> list[str]:
    """An ensemble's trace has a span for every model that it calls, so one for every step."""
    if tracing is None:
        return []
    settings = {
        "mode": "opentelemetry",
        "level": "TIMESTAMPS",
        "rate": tracing.rate,
        "count": -1,
        "opentelemetry,url": tracing.endpoint,
        "opentelemetry,resource": f"service.name={owner.name}",
    }
    settings_of_pipeline = [f"--trace-config={name}={value}" for name, value in settings.items()]
    return [*settings_of_pipeline, f"--trace-config=opentelemetry,resource=service.namespace={owner.namespace}"]


def _triton_container(spec: RevisionSpec, owner: Owner, image: str, settings: Settings) -> JsonObject:
    container = container_fields(naming.SERVER, image, settings.image_pull_policy, spec.target.resources)
    container["command"] = ["tritonserver"]
    container["args"] = [
        f"--model-repository={STORE_PATH}/repositories/{spec.repository}/models",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        # Nobody outside knows a pod's UID, so nobody can use these; Triton has no plain switch for them.
        f"--http-restricted-api={ADMIN_APIS}:pod-uid=$(POD_UID)",
        f"--grpc-restricted-protocol={ADMIN_APIS}:pod-uid=$(POD_UID)",
        f"--exit-timeout-secs={EXIT_TIMEOUT_SECONDS}",
        "--allow-metrics=true",
        # Quantiles of latencies, by which a canary is judged.
        "--metrics-config=summary_latencies=true",
        *spec.flags,
        *_tracing(spec.serving.tracing, owner),
        # gRPC clients are made to reconnect now and then, so that they find new pods and leave stopping ones.
        f"--grpc-max-connection-age={GRPC_CONNECTION_SECONDS * 1000}",
        f"--grpc-max-connection-age-grace={spec.drain_seconds * 1000}",
    ]
    container["env"] = [
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "DIFFUSION_PIPELINE", "value": owner.name},
        *(to_manifest(variable) for variable in spec.serving.env or ()),
    ]
    container["ports"] = [{"name": name, "containerPort": number} for name, number in PORTS]
    container["lifecycle"] = {"preStop": {"exec": {"command": _pre_stop_command(spec)}}}
    container["volumeMounts"] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - same
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the server's shared memory, a volume of the pod
        store_mount(read_only=True),
    ]
    return {**container, **_probes(spec)}


def _pre_stop_command(spec: RevisionSpec) -> list[str]:
    """Told to stop, Triton would cut what takes longer than its exit timeout: so first wait until it is idle."""
    limits = ["--min-wait", str(MIN_DRAIN_SECONDS), "--timeout", str(spec.drain_seconds)]
    return ["python3", "-m", "diffusion_builder", "drain", *limits]


def _probes(spec: RevisionSpec) -> JsonObject:
    """Ready only after every ensemble has answered a real request; from then on Triton's own word counts."""
    command = ["python3", "-m", "diffusion_builder", "smoke-test", "--url", f"http://127.0.0.1:{HTTP_PORT}"]
    command += ["--store", STORE_PATH, "--repository", spec.repository]
    return {
        "startupProbe": {
            "exec": {"command": command},
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
