"""Pods, and how their containers are."""

import re
from dataclasses import dataclass, replace
from typing import Self

from diffusion_contract.skus import GPU_RESOURCE, PRODUCT_LABEL
from diffusion_operator import naming
from diffusion_operator.json_objects import (
    JsonObject,
    as_count,
    as_object,
    as_objects,
    as_text,
    parse_json_object,
)
from diffusion_operator.manifests.common import GPU_CLAIM
from diffusion_operator.views.base import ObjectView, base_fields

JOB_NAME = "batch.kubernetes.io/job-name"
REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
"""A reason of a condition; another container's last words may be anything."""
MAIN_CONTAINERS = frozenset({naming.BUILD, naming.SERVER, naming.GATEWAY})


@dataclass(frozen=True)
class Termination:
    """How a container ended.

    Attributes:
        finished_at: RFC 3339; empty when the kubelet does not report it.
    """

    exit_code: int
    reason: str
    message: str
    finished_at: str = ""

    @property
    def builder_error(self) -> tuple[str, str]:
        """Reason and message that the builder gave; without one an empty reason and the whole text."""
        error = as_object(parse_json_object(self.message).get("error"))
        reason, message = as_text(error.get("reason")), as_text(error.get("message"))
        if REASON.fullmatch(reason) is not None and message:
            return reason, message
        return "", self.message.strip()


@dataclass(frozen=True)
class ContainerView:
    """The status of one container.

    Attributes:
        is_sidecar: an init container that runs beside the main one; `restartPolicy: Always`.
        running: it has started and not ended.
        started_at: of the present run, RFC 3339; empty when the kubelet does not report it.
        waiting_reason: why it has not started; empty when it has.
        termination: of the present run.
        last_termination: of the run before.
    """

    name: str
    image: str
    is_init: bool
    is_sidecar: bool
    ready: bool
    running: bool
    started_at: str
    waiting_reason: str
    waiting_message: str
    termination: Termination | None
    last_termination: Termination | None

    @classmethod
    def parse(cls, status: JsonObject, *, is_init: bool, is_sidecar: bool = False) -> Self:
        """An entry of containerStatuses or initContainerStatuses."""
        state = as_object(status.get("state"))
        waiting = as_object(state.get("waiting"))
        return cls(
            name=as_text(status.get("name")),
            image=as_text(status.get("image")),
            is_init=is_init,
            is_sidecar=is_sidecar,
            ready=bool(status.get("ready")),
            running="running" in state,
            started_at=as_text(as_object(state.get("running")).get("startedAt")),
            waiting_reason=as_text(waiting.get("reason")),
            waiting_message=as_text(waiting.get("message")),
            termination=_termination(state),
            last_termination=_termination(as_object(status.get("lastState"))),
        )


@dataclass(frozen=True)
class GpuDemand:
    """The GPU that a pod needs.

    Attributes:
        description: product, with the resource's name where it is not the usual one.
        resource: extended resource; empty for resource claims.
        node_label: that its node must have, as key=value; empty when no label chooses it.
    """

    description: str
    resource: str
    node_label: str = ""


@dataclass(frozen=True)
class PodView(ObjectView):
    """One pod.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        status_reason: of the whole pod, such as Evicted or DeadlineExceeded.
        started_at: when the kubelet took it, else when it was created.
        containers: init containers first.
        volume_sources: Secrets and claims that it mounts, for messages.
        gpu: None when it needs none.
    """

    phase: str
    status_reason: str
    status_message: str
    address: str
    started_at: str
    containers: tuple[ContainerView, ...]
    volume_sources: tuple[str, ...]
    gpu: GpuDemand | None

    @classmethod
    def parse(cls, manifest: JsonObject, gpu_labels: frozenset[str] = frozenset({PRODUCT_LABEL})) -> Self:
        """The pod as the API server returned it; the labels are keys that may say which GPU a node has."""
        fields = base_fields("Pod", manifest)
        status, spec = as_object(manifest.get("status")), as_object(manifest.get("spec"))
        sidecars = _sidecars(spec)
        return cls(
            **fields,
            phase=as_text(status.get("phase")),
            status_reason=as_text(status.get("reason")),
            status_message=as_text(status.get("message")),
            address=as_text(status.get("podIP")),
            started_at=as_text(status.get("startTime")) or fields["created_at"],
            containers=(
                *(
                    ContainerView.parse(entry, is_init=True, is_sidecar=as_text(entry.get("name")) in sidecars)
                    for entry in as_objects(status.get("initContainerStatuses"))
                ),
                *(ContainerView.parse(entry, is_init=False) for entry in as_objects(status.get("containerStatuses"))),
            ),
            volume_sources=tuple(filter(None, map(_volume_source, as_objects(spec.get("volumes"))))),
            gpu=_gpu_demand(spec, gpu_labels),
        )

    @property
    def job(self) -> str:
        """Name of its Job; empty for serving pods."""
        return self.labels.get(JOB_NAME, "")

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        ready = self.condition("Ready")
        return ready is not None and ready.is_true

    @property
    def main(self) -> ContainerView | None:
        """The container that we wrote the pod for; None before the kubelet has reported on it.

        Admission webhooks add containers of their own, in any place.
        """
        return next((item for item in self.containers if not item.is_init and item.name in MAIN_CONTAINERS), None)

    @property
    def is_running(self) -> bool:
        """Whether its main container runs."""
        return self.main is not None and self.main.running

    @property
    def has_running_companion(self) -> bool:
        """Whether an ordinary container runs beside the main one, as long as which Kubernetes ends no pod."""
        return any(item.running for item in self.containers if not item.is_init and item is not self.main)

    @property
    def has_lost_readiness(self) -> bool:
        """Whether it was ready since its container started, and is not any more.

        Between the startup probe and the first readiness probe a pod is not ready yet, which is no loss.
        """
        ready = self.condition("Ready")
        if ready is None or ready.status != "False":
            return False
        start = self.main.started_at if self.main is not None else ""
        return bool(start) and ready.changed_at > start

    @property
    def termination(self) -> Termination | None:
        """How its main container ended, or an init container that failed before it; None while neither has.

        A sidecar decides nothing: it is stopped after the main container, mostly with exit code 143.
        """
        ended = self.main.termination if self.main is not None else None
        init = [item.termination for item in self.containers if item.is_init and not item.is_sidecar]
        ended = ended or next((item for item in init if item is not None and item.exit_code != 0), None)
        if ended is not None:
            return replace(ended, reason=self.status_reason or ended.reason)
        if self.phase == "Failed":
            return Termination(-1, self.status_reason, self.status_message)
        return None


def _termination(state: JsonObject) -> Termination | None:
    ended = state.get("terminated")
    if not isinstance(ended, dict):
        return None
    return Termination(
        # A container that was lost with its node has an exit code and no times.
        exit_code=as_count(ended.get("exitCode"), 1),
        reason=as_text(ended.get("reason")),
        message=as_text(ended.get("message")),
        finished_at=as_text(ended.get("finishedAt")),
    )


def _sidecars(spec: JsonObject) -> frozenset[str]:
    """Names of the init containers that run beside the main container."""
    containers = as_objects(spec.get("initContainers"))
    return frozenset(as_text(item.get("name")) for item in containers if item.get("restartPolicy") == "Always")


def _volume_source(volume: JsonObject) -> str:
    secret = as_text(as_object(volume.get("secret")).get("secretName"))
    claim = as_text(as_object(volume.get("persistentVolumeClaim")).get("claimName"))
    return f"Secret {secret}" if secret else f"claim {claim}" if claim else ""


def _gpu_demand(spec: JsonObject, labels: frozenset[str]) -> GpuDemand | None:
    selector = as_object(spec.get("nodeSelector"))
    label, product = next(((key, as_text(selector[key])) for key in sorted(labels & selector.keys())), ("", "a GPU"))
    # A companion may have a device of its own.
    own = [item for item in as_objects(spec.get("containers")) if as_text(item.get("name")) in MAIN_CONTAINERS]
    limits = [name for item in own for name in as_object(as_object(item.get("resources")).get("limits"))]
    # A device plugin's resource has its maker's domain in front, unlike cpu, memory and ephemeral-storage.
    resource = next((name for name in limits if "/" in name), None)
    if resource is not None:
        description = product if resource == GPU_RESOURCE else f"{product} ({resource})"
        return GpuDemand(description, resource, f"{label}={product}" if label else "")
    claims = [claim for claim in as_objects(spec.get("resourceClaims")) if claim.get("name") == GPU_CLAIM]
    if claims:
        return GpuDemand(f"a GPU for claims of {as_text(claims[0].get('resourceClaimTemplateName'))}", "")
    return None
