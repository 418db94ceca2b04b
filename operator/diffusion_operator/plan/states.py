"""What was seen of every target, as a rollout is decided on it."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

from diffusion_contract.spec import Target
from diffusion_operator import naming
from diffusion_operator.plan import notes, routes
from diffusion_operator.plan.jobs import parse_result
from diffusion_operator.plan.observed import Observed
from diffusion_operator.rollout import RevisionState, RolloutState

JsonObject = dict[str, Any]


def state_of(
    observed: Observed, target: Target, desired: str | None, without: Container[str] = frozenset()
) -> RolloutState:
    """One target.

    Args:
        observed: what was seen.
        target: of the spec.
        desired: revision that is to be served; None while it is being built.
        without: revisions of an experiment's variants, which are none of the rollout's.
    """
    stable = stable_of(observed, target.name)
    revisions = tuple(item for item in revisions_of(observed, target.name) if item.name not in without)
    weights = _weights(observed, target.name, stable)
    return RolloutState(
        desired=desired,
        stable=stable,
        revisions=revisions,
        replicas=_replicas(target, desired, next((item for item in revisions if item.name == stable), None)),
        suspended=observed.spec.suspend,
        weights={name: weight for name, weight in weights.items() if name not in without},
        strays=_strays(observed, target.name, {stable, desired}),
    )


def rolled_back(observed: Observed, wanted: str) -> Mapping[str, str]:
    """Revisions, by target, that were served together with this one; empty when it is not there any more."""
    revisions = {_revision(item): item for item in observed.deployments if "deletionTimestamp" not in item["metadata"]}
    found = revisions.get(wanted)
    if found is None:
        return {}
    peers = parse_result(found["metadata"].get("annotations", {}).get(naming.PEERS))
    mine = {str(found["metadata"]["labels"][naming.TARGET]): wanted}
    return {name: str(revision) for name, revision in (peers | mine).items() if revision in revisions}


def _replicas(target: Target, desired: str | None, stable: RevisionState | None) -> int:
    """Pods that the desired revision needs to take over from the stable one, or that it has when it is that one."""
    scaling = target.autoscaling
    if scaling is None:
        return target.replicas
    live = stable.replicas if stable is not None else scaling.min_replicas
    idle = scaling.min_replicas == 0 and stable is not None and stable.name == desired and stable.proven
    # A new revision has to show that it works, even when nobody asks at the moment.
    return live if idle else min(max(live, scaling.min_replicas, 1), scaling.max_replicas)


def stable_of(observed: Observed, target: str) -> str | None:
    """Revision that the target's live Service calls stable; None before there is one."""
    live = _service(observed, target)
    revision = live.get("metadata", {}).get("annotations", {}).get(naming.STABLE)
    # An older operator wrote no annotation.
    revision = revision or live.get("spec", {}).get("selector", {}).get(naming.REVISION)
    return str(revision) if revision else None


def _weights(observed: Observed, target: str, stable: str | None) -> dict[str, int]:
    """Live percentages: what the routes say where there is a Gateway, else what the target's Service says."""
    rollout = observed.spec.rollout
    if rollout is not None and rollout.traffic.gateway is not None:
        return routes.weights(observed, target, stable)
    said = _service(observed, target).get("metadata", {}).get("annotations", {}).get(naming.CANARY, "")
    revision, _, weight = said.partition("=")
    return {revision: int(weight)} if weight.isdigit() and revision != stable else {}


def _service(observed: Observed, target: str) -> JsonObject:
    return observed.find("Service", naming.target_service(observed.owner.name, target)) or {}


def _strays(observed: Observed, target: str, known: set[str | None]) -> bool:
    """Pods that a Service over both revisions would select, too."""
    return any(
        pod["metadata"]["labels"].get(naming.REVISION) not in known
        for pod in observed.of_target(observed.serving_pods, target)
    )


def revisions_of(observed: Observed, target: str) -> Iterator[RevisionState]:
    """Everything that exists on a target, oldest first."""
    items = observed.of_target(observed.deployments, target)
    for item in sorted(items, key=lambda item: str(item["metadata"].get("creationTimestamp", ""))):
        yield _revision_state(observed, item)


def _revision_state(observed: Observed, item: JsonObject) -> RevisionState:
    status, replicas = item.get("status", {}), item.get("spec", {}).get("replicas", 1)
    # A status about an older generation says nothing about the number of pods that is wanted now.
    current = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
    note, since = notes.read(item)
    is_variant = naming.VARIANT in item["metadata"].get("annotations", {})
    proven = any(
        condition["type"] == "Progressing" and condition.get("reason") == "NewReplicaSetAvailable"
        for condition in status.get("conditions", [])
    )
    ready = status.get("readyReplicas", 0)
    return RevisionState(
        name=_revision(item),
        replicas=replicas,
        # A revision never changes, so pods that were ready before it was scaled still are, as far as they stay.
        ready=ready if current else min(ready, replicas) if note is not None or is_variant else 0,
        proven=proven,
        note=note,
        age=(observed.now - since).total_seconds() if note is not None else 0.0,
    )


def _revision(item: JsonObject) -> str:
    return str(item["metadata"]["labels"][naming.REVISION])
