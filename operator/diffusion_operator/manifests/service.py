"""Services: one per pipeline, one per target, one per revision."""

from dataclasses import dataclass

from diffusion_contract.limits import GRPC_PORT, HTTP_PORT, METRICS_PORT
from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner, metadata

PORTS = (("http", HTTP_PORT), ("grpc", GRPC_PORT), ("metrics", METRICS_PORT))


def revision_service(owner: Owner, target: str, revision: str) -> JsonObject:
    """Service of one revision, whether it has the traffic or not."""
    name = naming.revision_name(owner.name, target, revision)
    labels = naming.target_labels(owner.name, target) | {naming.REVISION: revision}
    return _service(name, owner, labels, _selector(owner, target, TrafficSplit(revision)))


@dataclass(frozen=True)
class VariantWeight:
    """A variant's part of the requests.

    Attributes:
        revision: that gets it; None while none does.
        weight: percentage that it gets now.
        full_weight: percentage that the spec gives it; what it does not get goes to the stable revision.
    """

    name: str
    revision: str | None
    weight: int
    full_weight: int


@dataclass(frozen=True)
class TrafficSplit:
    """Who answers the requests to a target.

    Attributes:
        stable: revision that gets what the canary does not.
        canary: revision on its way; None when there is none.
        splits_by_pods: the number of pods decides, so Services select both revisions while the weight is not 0.
    """

    stable: str
    canary: str | None = None
    weight: int = 0
    splits_by_pods: bool = True
    variants: tuple[VariantWeight, ...] = ()

    @property
    def shares(self) -> dict[str, int]:
        """Percentages by revision, those of more than nothing; 100 in all."""
        shares = {item.revision: item.weight for item in self.variants if item.revision is not None and item.weight}
        if self.canary is not None and self.weight:
            shares[self.canary] = self.weight
        return {self.stable: 100 - sum(shares.values()), **shares}

    @property
    def selects_both(self) -> bool:
        """Whether Services select the pods of both revisions."""
        return self.splits_by_pods and self.canary is not None and self.weight > 0


def target_service(owner: Owner, target: str, split: TrafficSplit) -> JsonObject:
    """Service of one target. Its annotation in the cluster is the truth about which revision is stable."""
    name = naming.target_service_name(owner.name, target)
    manifest = _service(name, owner, naming.target_labels(owner.name, target), _selector(owner, target, split))
    annotations = {naming.STABLE: split.stable}
    if split.selects_both:
        annotations[naming.CANARY] = f"{split.canary}={split.weight}"
    manifest["metadata"]["annotations"] = annotations
    return manifest


def pipeline_service(owner: Owner, stable: dict[str, TrafficSplit]) -> JsonObject:
    """Service of the whole pipeline.

    With one target it selects what the target's Service selects. A selector cannot name a different revision for
    each target, so with several it selects every ready pod; the Services of the targets switch sharply.

    Args:
        owner: the pipeline.
        stable: who answers, by target.
    """
    labels = naming.common_labels(owner.name, naming.SERVING)
    if len(stable) == 1:
        [(target, split)] = stable.items()
        return _service(owner.name, owner, labels, _selector(owner, target, split))
    return _service(owner.name, owner, labels, {naming.PIPELINE: owner.name, naming.ROLE: naming.SERVING})


def _selector(owner: Owner, target: str, split: TrafficSplit) -> dict[str, str]:
    """Ready pods share the requests evenly, so selecting both revisions splits them by their numbers of pods."""
    either = {naming.PIPELINE: owner.name, naming.TARGET: target}
    return either if split.selects_both else {**either, naming.REVISION: split.stable}


def _service(name: str, owner: Owner, labels: dict[str, str], selector: dict[str, str]) -> JsonObject:
    ports = [{"name": port, "port": number, "targetPort": port} for port, number in PORTS]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, owner, labels),
        "spec": {"type": "ClusterIP", "selector": selector, "ports": ports},
    }
