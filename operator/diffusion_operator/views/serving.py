"""Deployments, Services and routes of a pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject, as_count, as_object, as_objects, as_text, parse_json_object
from diffusion_operator.rollout.progress import RolloutProgress, parse_progress
from diffusion_operator.views.base import ObjectView, base_fields


@dataclass(frozen=True)
class DeploymentView(ObjectView):
    """The Deployment of one revision on one target.

    Attributes:
        reported_ready: ready pods in the status.
        status_is_current: the status is about the present generation.
        was_available: every pod was ready at some time.
        progress: of the revision's rollout; None when none is recorded.
        progress_since: when the revision came to this point; the epoch when none is recorded.
    """

    replicas: int
    reported_ready: int
    status_is_current: bool
    was_available: bool
    progress: RolloutProgress | None
    progress_since: datetime

    @classmethod
    def parse(cls, manifest: JsonObject) -> Self:
        """The Deployment as the API server returned it."""
        fields = base_fields("Deployment", manifest)
        spec, status = as_object(manifest.get("spec")), as_object(manifest.get("status"))
        progress, since = parse_progress(fields["annotations"].get(naming.ROLLOUT))
        return cls(
            **fields,
            replicas=as_count(spec.get("replicas"), 1),
            reported_ready=as_count(status.get("readyReplicas")),
            status_is_current=as_count(status.get("observedGeneration")) >= fields["generation"],
            was_available=any(
                condition.type == "Progressing" and condition.reason == "NewReplicaSetAvailable"
                for condition in fields["conditions"]
            ),
            progress=progress,
            progress_since=since,
        )

    @property
    def variant(self) -> str | None:
        """Variant of an experiment that the revision was created for."""
        return self.annotations.get(naming.VARIANT)

    @property
    def repository(self) -> str:
        """Digest of the model repository that its pods serve."""
        return self.annotations.get(naming.REPOSITORY, "")

    @property
    def siblings(self) -> dict[str, str]:
        """Revisions that are served together with this one, by target; this one included."""
        siblings = parse_json_object(self.annotations.get(naming.SIBLINGS))
        return {name: str(revision) for name, revision in siblings.items()} | {self.target or "": self.revision}

    @property
    def ready_replicas(self) -> int:
        """Ready pods, as far as the status can be trusted.

        A status about an older generation says nothing about the present number of pods. A revision never changes,
        though, so pods that were ready before a revision under way was scaled still are, as far as they stay.
        """
        if self.status_is_current:
            return self.reported_ready
        under_way = self.progress is not None or self.variant is not None
        return min(self.reported_ready, self.replicas) if under_way else 0


@dataclass(frozen=True)
class ServiceView(ObjectView):
    """A Service of the pipeline, a target or a revision.

    Attributes:
        stable_revision: of the target; None for other Services.
        canary_weights: percentages of other revisions that the Service selects by the number of their pods.
    """

    stable_revision: str | None
    canary_weights: Mapping[str, int]

    @classmethod
    def parse(cls, manifest: JsonObject) -> Self:
        """The Service as the API server returned it."""
        fields = base_fields("Service", manifest)
        selector = as_object(as_object(manifest.get("spec")).get("selector"))
        # An older operator wrote no annotation.
        stable = fields["annotations"].get(naming.STABLE) or selector.get(naming.REVISION)
        canary, _, weight = fields["annotations"].get(naming.CANARY, "").partition("=")
        weights = {canary: percent} if (percent := as_count(weight, -1)) >= 0 and canary != stable else {}
        return cls(**fields, stable_revision=stable or None, canary_weights=weights)


@dataclass(frozen=True)
class RouteView(ObjectView):
    """An HTTPRoute or GRPCRoute.

    Attributes:
        weights: of the Services behind its last rule, which is the one for requests without a special header.
    """

    weights: Mapping[str, int]

    @classmethod
    def parse(cls, kind: str, manifest: JsonObject) -> Self:
        """The route as the API server returned it."""
        rules = as_objects(as_object(manifest.get("spec")).get("rules"))
        weights: dict[str, int] = {}
        for backend in as_objects(rules[-1].get("backendRefs")) if rules else []:
            service = as_text(backend.get("name"))
            weights[service] = weights.get(service, 0) + as_count(backend.get("weight"), 1)
        return cls(**base_fields(kind, manifest), weights=weights)

    def revision_weights(self, pipeline: str, target: str) -> dict[str, int]:
        """Percentages of the target's revisions."""
        prefix = naming.revision_name(pipeline, target, "")
        # Another target may have a name that begins with this one's.
        weights = {
            service.removeprefix(prefix): weight
            for service, weight in self.weights.items()
            if service.startswith(prefix) and "-" not in service.removeprefix(prefix)
        }
        total = sum(weights.values())
        return {revision: round(100 * weight / total) for revision, weight in weights.items()} if total else {}
