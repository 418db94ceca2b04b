"""What a pass observes of one pipeline: its objects as views."""

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from diffusion_contract.engines import sources
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import Reference, RejectedError
from diffusion_operator.manifests import route
from diffusion_operator.manifests.common import Owner, gpu_node_label
from diffusion_operator.object_cache import ObjectVersion, Reader
from diffusion_operator.plan.observed import Claims, ObservedPipeline, claim_name
from diffusion_operator.settings import Settings
from diffusion_operator.views.base import View, parse_object
from diffusion_operator.views.job import JobView, lacks_pods, needs_pods
from diffusion_operator.views.pod import JOB_NAME, PodView
from diffusion_operator.views.serving import DeploymentView, RouteView, ServiceView
from diffusion_operator.views.storage import ClaimView

POLICY_KINDS = ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject", "NetworkPolicy")
FINISHED_JOBS = 256
log = logging.getLogger(__name__)


class FinishedJobs:
    """The latest views of Jobs that tell everything themselves: many pipelines share one, and it changes no more."""

    def __init__(self) -> None:
        self._views: OrderedDict[ObjectVersion, JobView] = OrderedDict()

    def view(self, manifest: JsonObject) -> JobView:
        """The Job as the API server returned it."""
        state = ObjectVersion.of(manifest)
        view = self._views.pop(state, None) or JobView.parse(manifest)
        if state.version:
            self._views[state] = view
        if len(self._views) > FINISHED_JOBS:
            self._views.popitem(last=False)
        return view


class Observer:
    """Observes pipelines.

    Args:
        reader: of the objects.
        settings: of the process.
        now: the time.
        finished_jobs: views of earlier passes; may be shared.
    """

    def __init__(
        self,
        reader: Reader,
        settings: Settings,
        now: Callable[[], datetime],
        finished_jobs: FinishedJobs | None = None,
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._now = now
        self._finished_jobs = finished_jobs or FinishedJobs()

    async def observe(self, owner: Owner, resource: JsonObject, spec: DiffusionPipelineSpec) -> ObservedPipeline:
        """Everything that belongs to the pipeline."""
        namespace = owner.namespace
        owned = f"{naming.MANAGED_SELECTOR},{naming.PIPELINE}={owner.name}"
        member = f"{naming.MANAGED_SELECTOR},{naming.needed_by_label(owner.name)}"
        answering = f"{owned},{naming.ROLE} in ({naming.SERVING},{naming.API})"
        jobs, deployments, services, pods, claims, (policies, routes) = await asyncio.gather(
            self._reader.select(Reference("Job", namespace), member),
            self._owned(("Deployment",), owner, owned, lambda _, body: DeploymentView.parse(body)),
            self._owned(("Service",), owner, owned, lambda _, body: ServiceView.parse(body)),
            self._reader.select(Reference("Pod", namespace), answering),
            self._claims(owner, spec),
            asyncio.gather(
                self._owned(POLICY_KINDS, owner, owned, parse_object),
                self._owned(route.KINDS, owner, owned, RouteView.parse),
            ),
        )
        pod_views = [PodView.parse(pod, self._gpu_labels(spec)) for pod in pods]
        return ObservedPipeline(
            owner=owner,
            generation=resource["metadata"]["generation"],
            spec=spec,
            now=self._now(),
            status=resource.get("status", {}),
            annotations=resource["metadata"].get("annotations", {}),
            claims=claims,
            jobs=await self._jobs(owner, jobs, self._gpu_labels(spec)),
            deployments=_of_role(naming.SERVING, deployments),
            services=_of_role(naming.SERVING, services),
            policies=_of_role(naming.SERVING, policies),
            routes=_of_role(naming.SERVING, routes),
            serving_pods=_of_role(naming.SERVING, pod_views),
            api_objects=_of_role(naming.API, (*deployments, *services, *policies, *routes)),
            api_pods=_of_role(naming.API, pod_views),
        )

    async def _owned(
        self, kinds: Sequence[str], owner: Owner, selector: str, parse: Callable[[str, JsonObject], View]
    ) -> tuple[View, ...]:
        """Objects of these kinds that the pipeline owns."""
        lists = await asyncio.gather(
            *(self._reader.select(Reference(kind, owner.namespace), selector) for kind in kinds)
        )
        views = (parse(kind, body) for kind, bodies in zip(kinds, lists, strict=True) for body in bodies)
        return tuple(view for view in views if view.is_owned_by(owner.uid))

    def _gpu_labels(self, spec: DiffusionPipelineSpec) -> frozenset[str]:
        gpus = [target.gpu for target in spec.targets if target.gpu is not None]
        return frozenset(gpu_node_label(gpu, self._settings.gpu_label)[0] for gpu in gpus)

    async def _jobs(
        self, owner: Owner, manifests: Sequence[JsonObject], gpu_labels: frozenset[str]
    ) -> tuple[JobView, ...]:
        """The pipeline's Jobs, with the pods of those whose own object does not yet tell everything."""
        unclear = [manifest for manifest in manifests if needs_pods(manifest)]
        names = sorted(manifest["metadata"]["name"] for manifest in unclear)
        pods: dict[str, list[PodView]] = defaultdict(list)
        if names:
            selector = f"{JOB_NAME} in ({','.join(names)})"
            for body in await self._reader.select(Reference("Pod", owner.namespace), selector):
                pod = PodView.parse(body, gpu_labels)
                pods[pod.job].append(pod)
        failures = await self._pod_failures(owner, [item for item in unclear if lacks_pods(item, pods)])
        views = (
            JobView.parse(item, pods[item["metadata"]["name"]], failures.get(item["metadata"]["uid"], ""))
            if item["metadata"]["name"] in names
            else self._finished_jobs.view(item)
            for item in manifests
        )
        return tuple(view for view in views if view.is_owned_by(owner.uid))

    async def _pod_failures(self, owner: Owner, manifests: Sequence[JsonObject]) -> dict[str, str]:
        """Why these Jobs get no pods, by UID: the newest message of each, which only Events have."""
        if not manifests:
            return {}
        selector = "involvedObject.kind=Job,reason=FailedCreate"
        try:
            events = await self._reader.select(Reference("Event", owner.namespace), "", selector)
        except RejectedError as error:
            # A person's account, or a role of an earlier version, may lack this right; the rest is known without it.
            log.info("%s: Events cannot be listed: %s", owner.name, error)
            return {}
        events.sort(key=lambda item: str(item.get("lastTimestamp") or item["metadata"].get("creationTimestamp", "")))
        return {item["involvedObject"].get("uid", ""): str(item.get("message", "")) for item in events}

    async def _claims(self, owner: Owner, spec: DiffusionPipelineSpec) -> Claims:
        store = await self._claim(owner.namespace, claim_name(spec, owner.name))
        if store is not None and spec.storage.claim_name is None and not store.is_owned_by(owner.uid):
            store = None
        volumes = [ref.source.persistent_volume_claim for ref in sources(spec.model)]
        names = sorted({volume.claim_name for volume in volumes if volume is not None})
        claims = await asyncio.gather(*(self._claim(owner.namespace, name) for name in names))
        return Claims(store, tuple(name for name, claim in zip(names, claims, strict=True) if claim is None))

    async def _claim(self, namespace: str, name: str) -> ClaimView | None:
        manifest = await self._reader.get(Reference("PersistentVolumeClaim", namespace, name))
        return ClaimView.parse(manifest) if manifest is not None else None


def _of_role(role: str, views: Iterable[View]) -> tuple[View, ...]:
    return tuple(view for view in views if view.labels.get(naming.ROLE) == role)
