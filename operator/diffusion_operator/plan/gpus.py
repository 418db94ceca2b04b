"""What the scheduler's message says about GPUs: how many nodes have one, and why the pod gets none."""

import re
from typing import Any

from diffusion_contract.spec.targets import GPU_RESOURCE, PRODUCT_LABEL

JsonObject = dict[str, Any]

REASON = re.compile(r"^(\d+) (.*)$")
NOT_OF_THE_KIND = ("node(s) didn't match Pod's node affinity/selector", "node(s) didn't match Pod's node affinity")
CLAIM = "cannot allocate all claims"


def waiting(pod: JsonObject, said: str) -> str | None:
    """What a pod that waits for a GPU waits for; None when it waits for something else, or needs no GPU.

    Args:
        pod: that could not be scheduled.
        said: message of its condition PodScheduled.
    """
    wanted = _wanted(pod)
    if wanted is None:
        return None
    product, resource = wanted
    reasons = _reasons(said)
    no_room = {f"Insufficient {resource}", CLAIM}
    taken = sum(count for text, count in reasons.items() if text in no_room)
    others = [text for text in reasons if text not in {*NOT_OF_THE_KIND, *no_room}]
    if taken:
        return f"{_nodes(taken)} {product}, 0 free: a GPU has to become free. The scheduler says: {said}"
    if others:
        return None
    return f"0 nodes have {product}, 0 free: add a node, or correct gpu.product. The scheduler says: {said}"


def _wanted(pod: JsonObject) -> tuple[str, str] | None:
    """What the pod wants, in words, and its resource."""
    spec = pod.get("spec", {})
    product = spec.get("nodeSelector", {}).get(PRODUCT_LABEL, "a GPU")
    containers = spec.get("containers", [])
    limits = [name for item in containers for name in item.get("resources", {}).get("limits", {})]
    # A device plugin's resource has its maker's domain in front, unlike cpu, memory and ephemeral-storage.
    resource = next((name for name in limits if "/" in name), None)
    if resource is not None:
        return (product if resource == GPU_RESOURCE else f"{product} ({resource})"), resource
    if spec.get("resourceClaims"):
        return f"a GPU for claims of {spec['resourceClaims'][0].get('resourceClaimTemplateName', '')}", ""
    return None


def _reasons(said: str) -> dict[str, int]:
    """How many nodes were turned down for each reason; what cannot be read counts as one reason of its own."""
    if said.startswith("no nodes available"):
        return {}
    # <n>/<m> nodes are available: <count> <reason>, <count> <reason>. preemption: ...
    sentence = said.partition(" nodes are available: ")[2].split(". ")[0] or said
    counted: dict[str, int] = {}
    for item in sentence.split(", "):
        one = REASON.match(item.strip().rstrip("."))
        text, count = (one[2], int(one[1])) if one is not None else (item, 1)
        counted[text] = counted.get(text, 0) + count
    return counted


def _nodes(count: int) -> str:
    return "1 node has" if count == 1 else f"{count} nodes have"
