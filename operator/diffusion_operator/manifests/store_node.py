"""The one node of a store whose claim cannot be mounted on several; pure.

All pods of such a claim have a label with its name and a required podAffinity to that label on one host. Why this and
not the name of a node:

* kube-scheduler lets the first pod of a required affinity that the pod itself satisfies run anywhere, and it places
  one pod after the other and counts those that it has just placed: two pods that are created at once share a node.
* Pods that have ended do not count. When none is left, the volume is attached to whatever node the next pod gets; a
  volume that cannot move has a node affinity of its own, which the scheduler also reads.
* No pass of the operator has to know the node: it would need to read PersistentVolumes and Nodes, which are no objects
  of a namespace, and its knowledge would be older than the scheduler's.

The affinity alone would let the first Job lead the volume to a node where no target can run. So all pods also have the
node labels and tolerations of all targets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusion_contract.base import Toleration
from diffusion_contract.spec import Target
from diffusion_operator import digests, naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import placement_of, to_manifest
from diffusion_operator.settings import GpuNodeLabel

HOST = "kubernetes.io/hostname"
MAX_LABEL_LENGTH = 63


@dataclass(frozen=True)
class StoreNode:
    """What all pods of a claim have in common.

    Attributes:
        claim: its name.
        node_selector: of all targets together.
        tolerations: of all targets together.
    """

    claim: str
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """Of every pod; the name of a claim may be longer than a label."""
        short = len(self.claim) <= MAX_LABEL_LENGTH
        return {naming.CLAIM: self.claim if short else digests.json_digest(self.claim)[:MAX_LABEL_LENGTH]}


def store_node(
    claim: str, access_modes: Iterable[str], targets: Iterable[Target], label: GpuNodeLabel
) -> StoreNode | None:
    """What the pods of this claim have in common; None when several nodes can mount it."""
    if "ReadWriteMany" in access_modes:
        return None
    placements = [placement_of(target, 0, None, label) for target in targets]
    selector = {key: value for placement in placements for key, value in placement.node_selector}
    tolerations = dict.fromkeys(entry for placement in placements for entry in placement.tolerations)
    return StoreNode(claim, tuple(sorted(selector.items())), tuple(tolerations))


def node_conflicts(targets: Iterable[Target], label: GpuNodeLabel) -> Iterator[str]:
    """Why no node can have pods of all these targets, as far as their node labels say it."""
    names: dict[str, dict[str, str]] = {}
    for target in targets:
        for key, value in placement_of(target, 0, None, label).node_selector:
            names.setdefault(key, {}).setdefault(value, target.name)
    for key, target_by_value in sorted(names.items()):
        if len(target_by_value) > 1:
            needs = ", ".join(f"target {name} needs {value}" for value, name in target_by_value.items())
            yield f"{needs} ({key})"


def with_store_node(pod: JsonObject, node: StoreNode | None) -> JsonObject:
    """The spec of a pod that runs where the others of its claim do; without a node the same.

    Args:
        pod: spec of the pod; affinity and tolerations that it has stay.
        node: of its store.
    """
    if node is None:
        return pod
    selector = {**pod.get("nodeSelector", {}), **dict(node.node_selector)}
    own_tolerations = list(pod.get("tolerations", []))
    extra = [entry for entry in map(to_manifest, node.tolerations) if entry not in own_tolerations]
    fields: JsonObject = {"nodeSelector": selector} if selector else {}
    if own_tolerations or extra:
        fields["tolerations"] = [*own_tolerations, *extra]
    return {**pod, **fields, "affinity": _affinity(pod.get("affinity", {}), node)}


def _affinity(affinity: JsonObject, node: StoreNode) -> JsonObject:
    term = {"labelSelector": {"matchLabels": node.labels}, "topologyKey": HOST}
    pods = affinity.get("podAffinity", {})
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    return {**affinity, "podAffinity": {**pods, field: [*pods.get(field, []), term]}}
