"""What keeps a pod from running, in words for a person."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from diffusion_operator.conditions import Reason
from diffusion_operator.views.pod import GpuDemand, PodView

WAITING_REASONS: Mapping[str, Reason] = {
    "ImagePullBackOff": Reason.IMAGE_PULL_BACK_OFF,
    "ErrImagePull": Reason.IMAGE_PULL_BACK_OFF,
    "InvalidImageName": Reason.IMAGE_PULL_BACK_OFF,
    "ErrImageNeverPull": Reason.IMAGE_PULL_BACK_OFF,
    "CreateContainerConfigError": Reason.CONTAINER_CONFIG_ERROR,
    "CreateContainerError": Reason.CONTAINER_CONFIG_ERROR,
    "RunContainerError": Reason.CONTAINER_CONFIG_ERROR,
}
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*":? ?(ErrImagePull: )?')
"""Kubernetes alternates between the error and this; the error alone is what a person needs."""

CRASH_REASONS = {"verify": Reason.VERIFY_FAILED}
"""Reasons for a crash of a certain container."""

NODE_REASON = re.compile(r"^(\d+) (.*)$")
OTHER_PRODUCT = frozenset(
    {"node(s) didn't match Pod's node affinity/selector", "node(s) didn't match Pod's node affinity"}
)
CLAIM_NOT_ALLOCATED = "cannot allocate all claims"


@dataclass(frozen=True)
class PodProblem:
    """Why a pod does not run; `reason` is a Reason, or the one that the builder gave.

    Attributes:
        since: RFC 3339; empty when unknown.
        gpus_in_use: nodes have the GPU that it waits for, and other pods use it.
    """

    reason: str
    message: str
    since: str
    gpus_in_use: bool = False


def pod_problem(pod: PodView) -> PodProblem | None:
    """The first thing that keeps the pod from running, or None."""
    return _unschedulable(pod) or _not_starting(pod) or _unmounted(pod) or _crashing(pod)


def _unschedulable(pod: PodView) -> PodProblem | None:
    condition = pod.condition("PodScheduled")
    if condition is None or condition.status != "False":
        return None
    text = condition.message or "no reason given"
    gpu_text = gpu_shortage(pod.gpu, text) if pod.gpu is not None else None
    if gpu_text is not None:
        in_use = pod.gpu is not None and _nodes_in_use(pod.gpu, text) > 0
        return PodProblem(Reason.WAITING_FOR_GPU, gpu_text, condition.changed_at, gpus_in_use=in_use)
    return PodProblem(Reason.UNSCHEDULABLE, f"Pod {pod.name} is unschedulable: {text}", condition.changed_at)


def _not_starting(pod: PodView) -> PodProblem | None:
    for container in pod.containers:
        reason = WAITING_REASONS.get(container.waiting_reason)
        if reason is not None:
            cause = BACK_OFF.sub("", container.waiting_message or reason)
            text = f"Container {container.name} of pod {pod.name} cannot start: {cause} (image {container.image})"
            return PodProblem(reason, text, pod.started_at)
    return None


def _unmounted(pod: PodView) -> PodProblem | None:
    """Kubernetes reports a missing Secret nowhere but in Events; while an image is pulled this is over."""
    condition = pod.condition("PodReadyToStartContainers")
    if condition is None or condition.status != "False" or pod.phase != "Pending":
        return None
    sources = ", ".join(pod.volume_sources)
    text = (
        f"Pod {pod.name} waits for its volumes ({sources}); do they exist? kubectl describe pod {pod.name} says more."
    )
    return PodProblem(Reason.CONTAINER_CONFIG_ERROR, text, condition.changed_at)


def _crashing(pod: PodView) -> PodProblem | None:
    # The main container first: what stops with it ends with exit codes of its own.
    for container in sorted(pod.containers, key=lambda container: container is not pod.main):
        ended = container.last_termination or container.termination
        if ended is None or container.ready or not ended.exit_code:
            continue
        subject = f"container {container.name} of pod {pod.name}"
        if ended.reason == "OOMKilled":
            text = f"The {subject} ran out of memory: raise its memory limit."
            return PodProblem(Reason.OUT_OF_MEMORY, text, pod.started_at)
        builder_reason, message = ended.builder_error
        cause = message or f"see kubectl logs {pod.name} -c {container.name}"
        reason = CRASH_REASONS.get(container.name, builder_reason or Reason.CRASH_LOOP_BACK_OFF)
        return PodProblem(reason, f"The {subject} ended with exit code {ended.exit_code}: {cause}", pod.started_at)
    return None


def gpu_shortage(gpu: GpuDemand, scheduler_message: str) -> str | None:
    """What a pod that waits for a GPU waits for; None when it waits for something else.

    Args:
        gpu: that the pod needs.
        scheduler_message: of its condition PodScheduled.
    """
    reasons, occupied = _node_reasons(scheduler_message), _nodes_in_use(gpu, scheduler_message)
    if occupied:
        nodes = "1 node has" if occupied == 1 else f"{occupied} nodes have"
        return f"{nodes} {gpu.description}, 0 free: a GPU has to become free. kube-scheduler: {scheduler_message}"
    if reasons.keys() - OTHER_PRODUCT:
        return None
    label = f" (node label {gpu.node_label})" if gpu.node_label else ""
    return (
        f"0 nodes have {gpu.description}{label}, 0 free: add a node, or correct gpu.product or gpu.productLabel. "
        f"kube-scheduler: {scheduler_message}"
    )


def _nodes_in_use(gpu: GpuDemand, scheduler_message: str) -> int:
    """Number of nodes that have the GPU and none of it free."""
    no_room = {f"Insufficient {gpu.resource}", CLAIM_NOT_ALLOCATED}
    return sum(count for text, count in _node_reasons(scheduler_message).items() if text in no_room)


def _node_reasons(scheduler_message: str) -> dict[str, int]:
    """How many nodes were turned down for each reason; an unreadable part counts as one reason of its own."""
    if scheduler_message.startswith("no nodes available"):
        return {}
    # <n>/<m> nodes are available: <count> <reason>, <count> <reason>. preemption: ...
    sentence = scheduler_message.partition(" nodes are available: ")[2].split(". ")[0] or scheduler_message
    counts: dict[str, int] = {}
    for clause in sentence.split(", "):
        match = NODE_REASON.match(clause.strip().rstrip("."))
        text, count = (match[2], int(match[1])) if match is not None else (clause, 1)
        counts[text] = counts.get(text, 0) + count
    return counts
