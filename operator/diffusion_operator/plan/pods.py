"""What a pod says about itself, in words for a person."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from diffusion_operator.conditions import Reason
from diffusion_operator.plan import gpus

JsonObject = dict[str, Any]

WAITING = {
    "ImagePullBackOff": Reason.IMAGE_PULL_BACK_OFF,
    "ErrImagePull": Reason.IMAGE_PULL_BACK_OFF,
    "InvalidImageName": Reason.IMAGE_PULL_BACK_OFF,
    "ErrImageNeverPull": Reason.IMAGE_PULL_BACK_OFF,
    "CreateContainerConfigError": Reason.CONTAINER_CONFIG_ERROR,
    "CreateContainerError": Reason.CONTAINER_CONFIG_ERROR,
    "RunContainerError": Reason.CONTAINER_CONFIG_ERROR,
}
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*":? ?(ErrImagePull: )?')
"""Kubernetes takes turns between the error and this; the error alone is what a person needs."""

OWN_REASONS = {"verify": Reason.VERIFY_FAILED}


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not get on; `reason` is a Reason, or the one that the builder gave."""

    reason: str
    message: str
    since: str


@dataclass(frozen=True)
class Termination:
    """How the last run of a pod's container ended."""

    exit_code: int
    reason: str
    message: str


def trouble(pod: JsonObject) -> Trouble | None:
    """The first thing that keeps the pod from running, or None."""
    name = pod["metadata"]["name"]
    return _unschedulable(pod, name) or _waiting(pod, name) or _unmounted(pod, name) or _crashing(pod, name)


def is_running(pod: JsonObject) -> bool:
    """True once a container of the pod has started."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any("running" in status.get("state", {}) for status in statuses)


def has_lost_readiness(pod: JsonObject) -> bool:
    """True when the pod was ready since its container started, and is not any more.

    Between the startup probe and the first readiness probe a pod is not ready yet, which is no loss.
    """
    status = pod.get("status", {})
    running = (item.get("state", {}).get("running", {}) for item in status.get("containerStatuses", []))
    starts = [str(item["startedAt"]) for item in running if "startedAt" in item]
    changes = [
        str(condition.get("lastTransitionTime", ""))
        for condition in status.get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "False"
    ]
    return any(change > start for change in changes for start in starts)


def termination(pod: JsonObject) -> Termination | None:
    """How the pod's container ended, or one in front of it that has failed; None while neither has."""
    status = pod.get("status", {})
    before = [(item, False) for item in status.get("initContainerStatuses", [])]
    for item, last in [*before, *((item, True) for item in status.get("containerStatuses", []))]:
        ended = item.get("state", {}).get("terminated")
        if ended is not None and (last or ended.get("exitCode", 1) != 0):
            reason = status.get("reason") or ended.get("reason", "")
            return Termination(int(ended.get("exitCode", 1)), reason, ended.get("message", ""))
    if status.get("phase") == "Failed":
        return Termination(-1, status.get("reason", ""), status.get("message", ""))
    return None


def last_words(ended: JsonObject) -> tuple[str, str]:
    """Reason (empty unless the builder gave one) and message of a terminated container."""
    text = str(ended.get("message", "")).strip()
    try:
        error = json.loads(text)["error"]
        return str(error["reason"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", text


def newest_first(pods: Iterable[JsonObject]) -> list[JsonObject]:
    """The pods by creation time, newest first."""
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)


def _unschedulable(pod: JsonObject, name: str) -> Trouble | None:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said, since = condition.get("message", "no reason given"), str(condition.get("lastTransitionTime", ""))
            waiting = gpus.waiting(pod, said)
            if waiting is not None:
                return Trouble(Reason.WAITING_FOR_GPU, waiting, since)
            return Trouble(Reason.UNSCHEDULABLE, f"No node can take pod {name}: {said}", since)
    return None


def _waiting(pod: JsonObject, name: str) -> Trouble | None:
    for status in _statuses(pod):
        waiting = status.get("state", {}).get("waiting", {})
        reason = WAITING.get(waiting.get("reason", ""))
        if reason is not None:
            said = BACK_OFF.sub("", str(waiting.get("message", reason)))
            text = f"Container {status['name']} of pod {name} cannot start: {said} (image {status.get('image')})"
            return Trouble(reason, text, _started(pod))
    return None


def _unmounted(pod: JsonObject, name: str) -> Trouble | None:
    """Kubernetes says nowhere but in Events that a Secret is missing; while an image is pulled this is over."""
    for condition in pod.get("status", {}).get("conditions", []):
        waits = condition["type"] == "PodReadyToStartContainers" and condition["status"] == "False"
        if waits and pod["status"].get("phase") == "Pending":
            wanted = ", ".join(_volume_sources(pod))
            text = f"Pod {name} waits for its volumes ({wanted}); do they exist? kubectl describe pod {name} says more."
            return Trouble(Reason.CONTAINER_CONFIG_ERROR, text, str(condition.get("lastTransitionTime", "")))
    return None


def _volume_sources(pod: JsonObject) -> Iterator[str]:
    for volume in pod.get("spec", {}).get("volumes", []):
        if "secret" in volume:
            yield f"Secret {volume['secret']['secretName']}"
        elif "persistentVolumeClaim" in volume:
            yield f"claim {volume['persistentVolumeClaim']['claimName']}"


def _crashing(pod: JsonObject, name: str) -> Trouble | None:
    for status in _statuses(pod):
        ended = status.get("lastState", {}).get("terminated") or status.get("state", {}).get("terminated")
        if ended is None or status.get("ready") or not ended.get("exitCode"):
            continue
        where = f"container {status['name']} of pod {name}"
        if ended.get("reason") == "OOMKilled":
            text = f"The {where} ran out of memory: raise its memory limit."
            return Trouble(Reason.OUT_OF_MEMORY, text, _started(pod))
        builder_reason, text = last_words(ended)
        said = text or f"see kubectl logs {name} -c {status['name']}"
        reason = OWN_REASONS.get(status["name"], builder_reason or Reason.CRASH_LOOP_BACK_OFF)
        return Trouble(reason, f"The {where} ended with exit code {ended['exitCode']}: {said}", _started(pod))
    return None


def _statuses(pod: JsonObject) -> Iterator[JsonObject]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def _started(pod: JsonObject) -> str:
    return str(pod.get("status", {}).get("startTime", pod["metadata"].get("creationTimestamp", "")))
