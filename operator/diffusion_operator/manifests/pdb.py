"""The PodDisruptionBudget of one target: a node that is emptied takes one pod at a time."""

from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner, metadata


def budget(owner: Owner, target: str) -> JsonObject:
    """The budget over the pods of all revisions of the target.

    One pod may always go: with a single replica anything stricter would keep its node from ever being emptied.
    """
    labels = naming.target_labels(owner.name, target)
    selector = {naming.PIPELINE: owner.name, naming.TARGET: target, naming.ROLE: naming.SERVING}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(naming.target_service(owner.name, target), owner, labels),
        "spec": {
            "maxUnavailable": 1,
            # A pod that does not answer anyway must not keep its node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector},
        },
    }
