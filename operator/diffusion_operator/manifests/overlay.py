"""What a `podTemplate` adds to a pod, merged as Kubernetes merges a strategic patch; pure."""

from typing import Any

from diffusion_contract.base import JsonObject
from diffusion_contract.spec import PodTemplate
from diffusion_contract.spec.pod_container import OPERATOR_CONTAINERS
from diffusion_operator.manifests.common import RESTRICTED, to_manifest

CONTAINER_LISTS = ("initContainers", "containers")
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""Fields by which entries of lists are the same entry."""
WHOLE_ENTRIES = frozenset({"volumes", "env", "volumeMounts", "topologySpreadConstraints"})
"""Lists whose entries are replaced: half of two kinds of volume is none."""
JOINED_LISTS = frozenset({"tolerations", "envFrom"})


def with_overlay(template: JsonObject, overlay: PodTemplate | None) -> JsonObject:
    """The pod template with what the overlay adds.

    Args:
        template: `metadata` and `spec` of pods that the operator has written.
        overlay: that was validated: it leaves alone what the operator relies on. None changes nothing.
    """
    patch = to_manifest(overlay) if overlay is not None else {}
    spec = dict(patch.get("spec", {}))
    for field in CONTAINER_LISTS:
        if field in spec:
            present = {container["name"] for container in template["spec"].get(field, [])}
            spec[field] = [_container(entry, present) for entry in spec[field] if _has_place(entry, present)]
    merged: JsonObject = _merged(template, {**patch, "spec": spec}, "")
    return merged


def _has_place(entry: JsonObject, present: set[str]) -> bool:
    """Not every Job has all of the operator's containers."""
    return entry["name"] in present or entry["name"] not in OPERATOR_CONTAINERS


def _container(entry: JsonObject, present: set[str]) -> JsonObject:
    """An added container is as restricted as the operator's own."""
    if entry["name"] in present:
        return entry
    return {**entry, "securityContext": {**RESTRICTED, **entry.get("securityContext", {})}}


def _merged(value: Any, patch: Any, field: str) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict) and isinstance(patch, dict):
        return {**value, **{key: _merged(value.get(key), entry, key) for key, entry in patch.items()}}
    if field in JOINED_LISTS:
        return [*(value or []), *(entry for entry in patch if entry not in (value or []))]
    if field in MERGE_KEYS:
        return _merged_by_key(value or [], patch, field)
    return patch


def _merged_by_key(entries: list[JsonObject], patch: list[JsonObject], field: str) -> list[JsonObject]:
    key, changes = MERGE_KEYS[field], {entry[MERGE_KEYS[field]]: entry for entry in patch}
    present = {entry[key] for entry in entries}
    merged = [_entry(entry, changes.get(entry[key]), field) for entry in entries]
    added = [entry for entry in patch if entry[key] not in present]
    # What is added prepares the ground: certificates, a proxy.
    return [*added, *merged] if field == "initContainers" else [*merged, *added]


def _entry(entry: JsonObject, change: JsonObject | None, field: str) -> JsonObject:
    if change is None:
        return entry
    merged: JsonObject = change if field in WHOLE_ENTRIES else _merged(entry, change, "")
    return merged
