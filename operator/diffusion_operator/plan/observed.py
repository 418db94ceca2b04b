"""The observed objects of one pipeline."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.analysis.window import Window
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner
from diffusion_operator.views.base import ObjectView, View, newest_first
from diffusion_operator.views.job import JobView
from diffusion_operator.views.pod import PodView
from diffusion_operator.views.serving import DeploymentView, RouteView, ServiceView
from diffusion_operator.views.storage import ClaimView


@dataclass(frozen=True)
class Claims:
    """The claims that the spec names.

    Attributes:
        store: that holds the artifacts; None when it does not exist.
        missing: names of claims that should hold sources and do not exist.
    """

    store: ClaimView | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObservedPipeline:
    """Everything that belongs to a pipeline, at one time.

    Attributes:
        status: present status, only to find out what is new.
        policies: disruption budgets and autoscalers of all targets.
        api_objects: everything of the images API; the other objects are none of it.
        live_digests: artifacts in the store that any pipeline of the namespace needs; None until a plan needs them.
        windows: requests of revisions since their step of a rollout began, by target and revision; None until a plan
            needs them.
    """

    owner: Owner
    generation: int
    spec: DiffusionPipelineSpec
    now: datetime
    status: JsonObject = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    claims: Claims = Claims()
    jobs: tuple[JobView, ...] = ()
    deployments: tuple[DeploymentView, ...] = ()
    services: tuple[ServiceView, ...] = ()
    policies: tuple[ObjectView, ...] = ()
    routes: tuple[RouteView, ...] = ()
    serving_pods: tuple[PodView, ...] = ()
    api_objects: tuple[ObjectView, ...] = ()
    api_pods: tuple[PodView, ...] = ()
    live_digests: frozenset[str] | None = None
    windows: Mapping[tuple[str, str], Window] | None = None

    @property
    def serving_objects(self) -> tuple[ObjectView, ...]:
        """Everything that serves, in the order in which it is deleted."""
        return (*self.services, *self.deployments, *self.policies, *self.routes)

    def find(self, kind: str, name: str) -> ObjectView | None:
        """The object with this name, when it was observed and belongs to the pipeline."""
        claims = (self.claims.store,) if self.claims.store is not None else ()
        views = (*self.serving_objects, *self.api_objects, *claims)
        return next((view for view in views if (view.kind, view.name) == (kind, name)), None)

    def target_service(self, target: str) -> ServiceView | None:
        """The target's Service; its annotation is the truth about which revision is stable."""
        name = naming.target_service_name(self.owner.name, target)
        return next((service for service in self.services if service.name == name), None)

    def pods_of(self, target: str, revision: str) -> list[PodView]:
        """Serving pods of a revision, newest first."""
        return newest_first(pod for pod in self.serving_pods if (pod.target, pod.revision) == (target, revision))

    def window(self, target: str, revision: str) -> Window:
        """Requests of the revision since its step began; empty when they are unknown."""
        return (self.windows or {}).get((target, revision), Window())


def live_views(views: Iterable[View], target: str) -> Iterator[View]:
    """Views of the target's objects that are not being deleted."""
    return (view for view in views if view.target == target and not view.terminating)


def claim_name(spec: DiffusionPipelineSpec, pipeline: str) -> str:
    """Name of the claim that holds the store."""
    return spec.storage.claim_name or naming.claim_name(pipeline)
