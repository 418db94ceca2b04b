"""Services: one per pipeline, one per target, one per revision."""

from diffusion_operator import naming
from diffusion_operator.manifests.common import JsonObject, Owner, metadata

PORTS = (("http", 8000), ("grpc", 8001), ("metrics", 8002))


def for_revision(owner: Owner, target: str, revision: str) -> JsonObject:
    """Service of one revision, whether it has the traffic or not."""
    labels = naming.target_labels(owner.name, target) | {naming.REVISION: revision}
    return _service(naming.revision(owner.name, target, revision), owner, labels, _selector(owner, target, revision))


def for_target(owner: Owner, target: str, stable: str) -> JsonObject:
    """Service of one target. Its selector in the cluster is the truth about which revision is stable."""
    name = naming.target_service(owner.name, target)
    return _service(name, owner, naming.target_labels(owner.name, target), _selector(owner, target, stable))


def for_pipeline(owner: Owner, stable: dict[str, str]) -> JsonObject:
    """Service of the whole pipeline.

    With one target it selects the stable revision. A selector cannot name a different revision for
    each target, so with several it selects every ready pod; the Services of the targets switch sharply.

    Args:
        owner: the pipeline.
        stable: revision that has the traffic, by target.
    """
    labels = naming.common_labels(owner.name, naming.SERVING)
    if len(stable) == 1:
        [(target, revision)] = stable.items()
        return _service(owner.name, owner, labels, _selector(owner, target, revision))
    return _service(owner.name, owner, labels, {naming.PIPELINE: owner.name, naming.ROLE: naming.SERVING})


def _selector(owner: Owner, target: str, revision: str) -> dict[str, str]:
    return {naming.PIPELINE: owner.name, naming.TARGET: target, naming.REVISION: revision}


def _service(name: str, owner: Owner, labels: dict[str, str], selector: dict[str, str]) -> JsonObject:
    ports = [{"name": port, "port": number, "targetPort": port} for port, number in PORTS]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, owner, labels),
        "spec": {"type": "ClusterIP", "selector": selector, "ports": ports},
    }
