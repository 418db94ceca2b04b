"""Whose metrics are to be read: all sides of every canary and experiment that has a share of the traffic."""

from collections.abc import Iterator
from typing import Any

from diffusion_operator import naming
from diffusion_operator.plan import notes, routes, states
from diffusion_operator.plan.jobs import rfc3339
from diffusion_operator.plan.observed import Observed
from diffusion_operator.probe import Watched

JsonObject = dict[str, Any]


def watched(observed: Observed) -> Iterator[Watched]:
    """Revisions to read; the name of the step holds since when it counts, so every step has its own window."""
    if observed.spec.rollout is None:
        return
    if observed.spec.rollout.experiment is not None:
        for target in observed.spec.targets:
            yield from _of_experiment(observed, target.name)
    if observed.spec.rollout.strategy != "Canary":
        return
    for item in observed.deployments:
        note, since = notes.read(item)
        if note is None or note.phase != "Step" or not note.settled or "deletionTimestamp" in item["metadata"]:
            continue
        target, canary = item["metadata"]["labels"][naming.TARGET], item["metadata"]["labels"][naming.REVISION]
        step = f"{canary}/{note.step}@{rfc3339(since)}"
        for revision in filter(None, (canary, states.stable_of(observed, target))):
            yield Watched(target, revision, step, _pods(observed, target, revision))


def _of_experiment(observed: Observed, target: str) -> Iterator[Watched]:
    """Everything that has a share. Where a revision comes or goes, all begin anew, so that they stay comparable."""
    stable = states.stable_of(observed, target)
    sides = [*filter(None, (stable,)), *sorted(routes.weights(observed, target, stable))]
    for revision in sides if len(sides) > 1 else ():
        yield Watched(target, revision, f"experiment {' '.join(sides)}", _pods(observed, target, revision))


def _pods(observed: Observed, target: str, revision: str) -> dict[str, str]:
    """UID to address of those that are ready."""
    found = (pod for pod in observed.pods_of(target, revision) if "deletionTimestamp" not in pod["metadata"])
    return {
        pod["metadata"]["uid"]: pod["status"]["podIP"]
        for pod in found
        if pod.get("status", {}).get("podIP") and _is_ready(pod)
    }


def _is_ready(pod: JsonObject) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
