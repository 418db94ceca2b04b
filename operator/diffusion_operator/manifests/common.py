"""What several kinds share: owners, security, volumes, placement."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffusion_contract.base import ApiModel, Toleration
from diffusion_contract.enums import Runtime
from diffusion_contract.resources import Resources
from diffusion_contract.skus import GPU_RESOURCE
from diffusion_contract.spec import Affinity, Jobs, Storage, Target
from diffusion_contract.spec.targets import Gpu
from diffusion_operator import naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.settings import GpuNodeLabel, PodUser, Settings

STORE_PATH = "/store"
TERMINATION_LOG = "/dev/termination-log"
GPU_CLAIM = "gpu"
DEFAULT_ACCESS_MODES = ("ReadWriteMany",)
RESTRICTED: Mapping[str, object] = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
"""What Pod Security `restricted` wants of every container."""


@dataclass(frozen=True)
class Owner:
    """The pipeline that an object belongs to."""

    name: str
    namespace: str
    uid: str


@dataclass(frozen=True)
class Placement:
    """Which nodes the pods may run on, and which GPUs they get there.

    Attributes:
        gpu: of one pod; None for a CPU.
        gpus: how many of them.
    """

    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    priority_class: str | None = None
    affinity: Affinity | None = None
    gpu: Gpu | None = None
    gpus: int = 1

    @property
    def runtime(self) -> Runtime:
        """What executes engines there."""
        return Runtime.TENSORRT if self.gpu is not None else Runtime.ONNXRUNTIME


def gpu_node_label(gpu: Gpu, default: GpuNodeLabel) -> tuple[str, str]:
    """Key and value of the label that nodes with this GPU have."""
    key = gpu.product_label or default.key
    values = dict(default.values) if key == default.key else {}
    return key, gpu.product_label_value or values.get(gpu.product, gpu.product)


def placement_of(target: Target, gpus: int, priority_class: str | None, label: GpuNodeLabel) -> Placement:
    """Where pods for this target run.

    Args:
        target: of the pods.
        gpus: of each pod.
        priority_class: of the pods.
        label: of GPU nodes, unless the target names another one.
    """
    selector, tolerations = dict(target.node_selector or {}), tuple(target.tolerations or ())
    if target.gpu is not None:
        tolerations = (*tolerations, Toleration(key=GPU_RESOURCE, operator="Exists"))
        if target.gpu.resource_claim_template_name is None:
            selector.update([gpu_node_label(target.gpu, label)])
    return Placement(tuple(sorted(selector.items())), tolerations, priority_class, gpu=target.gpu, gpus=gpus)


def job_placement(jobs: Jobs, priority_class: str | None, target: Placement) -> Placement:
    """Where pods of a Job run: as all Jobs, and as its target says, which wins.

    Args:
        jobs: of the pipeline, with the administrator's defaults.
        priority_class: of the build Jobs; wins over that of all Jobs.
        target: of a Job that compiles; an empty placement for the others.
    """
    selector = {**(jobs.node_selector or {}), **dict(target.node_selector)}
    return replace(
        target,
        node_selector=tuple(sorted(selector.items())),
        tolerations=tuple(dict.fromkeys([*(jobs.tolerations or ()), *target.tolerations])),
        priority_class=priority_class or jobs.priority_class_name,
        affinity=jobs.affinity,
    )


def metadata(name: str, owner: Owner, labels: dict[str, str], *, controller: bool = True) -> JsonObject:
    """Metadata of an object that Kubernetes deletes with its (last) owner."""
    reference: JsonObject = {"apiVersion": API_VERSION, "kind": KIND, "name": owner.name, "uid": owner.uid}
    if controller:
        reference["controller"] = True
    return {"name": name, "namespace": owner.namespace, "labels": labels, "ownerReferences": [reference]}


def pod_fields(settings: Settings, placement: Placement, service_account: str) -> JsonObject:
    """Fields of every pod: Pod Security `restricted`, no API access, nodes."""
    pod: JsonObject = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(settings.pod_user),
    }
    if service_account:
        pod["serviceAccountName"] = service_account
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if placement.node_selector:
        pod["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        pod["tolerations"] = [to_manifest(toleration) for toleration in placement.tolerations]
    if placement.affinity is not None and (affinity := to_manifest(placement.affinity)):
        pod["affinity"] = affinity
    if placement.priority_class is not None:
        pod["priorityClassName"] = placement.priority_class
    return {**pod, **_gpu_of_pod(placement.gpu)}


def _pod_security(user: PodUser) -> JsonObject:
    numbers = {"runAsUser": user.user, "runAsGroup": user.group, "fsGroup": user.fs_group}
    return {
        "runAsNonRoot": True,
        **{field: number for field, number in numbers.items() if number is not None},
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _gpu_of_pod(gpu: Gpu | None) -> JsonObject:
    fields: JsonObject = {}
    if gpu is not None and gpu.runtime_class_name is not None:
        fields["runtimeClassName"] = gpu.runtime_class_name
    if gpu is not None and gpu.resource_claim_template_name is not None:
        fields["resourceClaims"] = [{"name": GPU_CLAIM, "resourceClaimTemplateName": gpu.resource_claim_template_name}]
    return fields


def with_gpu(container: JsonObject, placement: Placement) -> JsonObject:
    """The container with the GPUs of its pod."""
    gpu = placement.gpu
    if gpu is None:
        return container
    resources = dict(container["resources"])
    if gpu.resource_claim_template_name is not None:
        resources["claims"] = [{"name": GPU_CLAIM}]
    else:
        # The target's number of GPUs counts, and Kubernetes takes no request that differs from the limit.
        requests = {name: value for name, value in resources.get("requests", {}).items() if name != gpu.resource}
        limits = {**resources.get("limits", {}), gpu.resource: str(placement.gpus)}
        resources = {"requests": requests, "limits": limits} if requests else {"limits": limits}
    # `utility` is nvidia-smi: the builder compares the GPU that it got with the one that was asked for.
    driver = {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"}
    return {**container, "resources": resources, "env": [*container.get("env", []), driver]}


def container_fields(name: str, image: str, pull_policy: str, resources: Resources) -> JsonObject:
    """Fields of every container."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "resources": to_manifest(resources),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": True},
    }


def store_claim(storage: Storage, owner: Owner) -> JsonObject:
    """Claim of a pipeline that brings its own store; it is deleted with the pipeline."""
    spec: JsonObject = {
        "accessModes": list(storage.access_modes or DEFAULT_ACCESS_MODES),
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(naming.claim_name(owner.name), owner, naming.common_labels(owner.name, naming.STORE)),
        "spec": spec,
    }


def store_volume(claim: str, *, read_only: bool) -> JsonObject:
    """The store as a volume."""
    source = {"claimName": claim, "readOnly": True} if read_only else {"claimName": claim}
    return {"name": naming.STORE, "persistentVolumeClaim": source}


def store_mount(*, read_only: bool) -> JsonObject:
    """The store inside a container."""
    mount: JsonObject = {"name": naming.STORE, "mountPath": STORE_PATH}
    return {**mount, "readOnly": True} if read_only else mount


def to_manifest(model: ApiModel) -> JsonObject:
    """The model as Kubernetes writes it."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
