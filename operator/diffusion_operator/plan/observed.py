"""What was seen of one pipeline in the cluster."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.analysis import Window
from diffusion_operator.conditions import Reason
from diffusion_operator.manifests.common import Owner
from diffusion_operator.plan.jobs import JobView
from diffusion_operator.plan.pods import Trouble, newest_first, trouble

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Claims:
    """The claims that the spec names.

    Attributes:
        store: that holds the artifacts; None when it does not exist.
        missing: names of those that should hold sources and do not exist.
    """

    store: JsonObject | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """One look at everything that belongs to a pipeline.

    Attributes:
        generation: of the spec.
        status: present status, only to tell what is new.
        deployments: of all targets and revisions.
        services: of the pipeline, its targets and revisions.
        serving_pods: of all revisions.
        keep: digests of all that the store holds for pipelines of the namespace; only looked up when this one is to
            clean it now.
        policies: budgets and autoscalers of all targets, and routes, by kind.
        annotations: of the pipeline.
        windows: what revisions answered since their step of a rollout began, by target and revision.
        now: when this was seen.
    """

    owner: Owner
    generation: int
    spec: DiffusionPipelineSpec
    now: datetime
    status: JsonObject = field(default_factory=dict)
    claims: Claims = Claims()
    jobs: tuple[JobView, ...] = ()
    deployments: tuple[JsonObject, ...] = ()
    services: tuple[JsonObject, ...] = ()
    serving_pods: tuple[JsonObject, ...] = ()
    keep: frozenset[str] | None = None
    policies: Mapping[str, tuple[JsonObject, ...]] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[tuple[str, str], Window] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> JsonObject | None:
        """The object with this name, when it was seen and belongs to the pipeline."""
        items = {
            "Deployment": self.deployments,
            "Service": self.services,
            "PersistentVolumeClaim": (self.claims.store,) if self.claims.store is not None else (),
            **self.policies,
        }
        return next((item for item in items.get(kind, ()) if item["metadata"]["name"] == name), None)

    def of_target(self, items: Iterable[JsonObject], target: str) -> Iterator[JsonObject]:
        """Those of the objects that belong to the target and are not on their way out."""
        for item in items:
            gone = "deletionTimestamp" in item["metadata"]
            if item["metadata"].get("labels", {}).get(naming.TARGET) == target and not gone:
                yield item

    def pods_of(self, target: str, revision: str) -> list[JsonObject]:
        """Serving pods of a revision, newest first."""
        wanted = {naming.TARGET: target, naming.REVISION: revision}.items()
        return newest_first(pod for pod in self.serving_pods if wanted <= pod["metadata"].get("labels", {}).items())

    def serving_trouble(self, target: str, revision: str) -> Trouble | None:
        """What keeps the newest pod of a revision from being ready, or from being created at all."""
        found = next(filter(None, map(trouble, self.pods_of(target, revision))), None)
        name = naming.revision(self.owner.name, target, revision)
        return found or next(filter(None, (_refused(item) for item in self.deployments if _is(item, name))), None)


def _is(item: JsonObject, name: str) -> bool:
    return bool(item["metadata"]["name"] == name)


def _refused(deployment: JsonObject) -> Trouble | None:
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            text = f"The pods of {deployment['metadata']['name']} are refused: {condition.get('message', '')}"
            return Trouble(Reason.OBJECT_REFUSED, text, str(condition.get("lastTransitionTime", "")))
    return None


def claim_name(spec: DiffusionPipelineSpec, pipeline: str) -> str:
    """Name of the claim that holds the store."""
    return spec.storage.claim_name or naming.claim(pipeline)
