"""One pass over one pipeline: observe, plan, (observe what the plan needs, plan again), act, write the status."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import ValidationError

from diffusion_contract.engines import sources
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import kube_client, naming
from diffusion_operator.api import KIND
from diffusion_operator.conditions import Reason
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import KubeClient, NameConflictError, Reference, RejectedError
from diffusion_operator.manifests import route
from diffusion_operator.manifests.common import Owner, gpu_node_label, to_manifest
from diffusion_operator.manifests.event import event_manifest
from diffusion_operator.metrics import Metrics, Readiness
from diffusion_operator.metrics_scraper import MetricsScraper
from diffusion_operator.plan import actions
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.build_steps import admissible_jobs
from diffusion_operator.plan.context import plan_context
from diffusion_operator.plan.garbage_collection import StoreUsers, gc_owner, live_digests, pipelines_on
from diffusion_operator.plan.observed import Claims, ObservedPipeline, claim_name
from diffusion_operator.plan.planner import ObservationRequest, Plan, planning, rejection
from diffusion_operator.plan.refusals import Refusal, action_subject, has_to_wait, refusal_condition
from diffusion_operator.settings import Settings
from diffusion_operator.views.base import View, parse_object, rfc3339
from diffusion_operator.views.job import JobView, lacks_pods, needs_pods
from diffusion_operator.views.pod import JOB_NAME, PodView
from diffusion_operator.views.serving import DeploymentView, RouteView, ServiceView
from diffusion_operator.views.storage import ClaimView, PipelineView

POLICY_KINDS = ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject", "NetworkPolicy")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipelineKey:
    """Namespace and name of a pipeline."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Reconciler:
    """Brings the cluster to the specs of pipelines, one pass at a time."""

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        metrics: Metrics | None = None,
        scraper: MetricsScraper | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._admission = asyncio.Lock()
        self._metrics = metrics or Metrics()
        self._scraper = scraper or MetricsScraper()

    async def reconcile(self, key: PipelineKey) -> float | None:
        """One pass.

        Returns:
            Seconds until the next pass is due, or None when an event will ask for it.

        Raises:
            UnavailableError: the API server cannot be reached now.
            ConflictError: something changed in between.
        """
        resource = await self._client.get(Reference(KIND, key.namespace, key.name))
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._metrics.remove_pipeline(str(key))
            self._scraper.forget(str(key))
            return None
        owner = Owner(key.name, key.namespace, resource["metadata"]["uid"])
        jobs: tuple[JobView, ...] = ()
        try:
            spec = DiffusionPipelineSpec.model_validate(resource.get("spec", {}))
        except ValidationError as error:
            plan = _rejection(resource, error)
        else:
            observed = await self._observe(owner, resource, spec)
            plan, jobs = await self._plan_and_act(observed), observed.jobs
        await self._write_status(owner, resource, plan)
        states = [(f"{key.namespace}/{job.name}", job.stage, job.phase) for job in jobs]
        suspended = resource.get("spec", {}).get("suspend") is True
        self._metrics.record_pipeline(str(key), ready=Readiness(*plan.ready, suspended=suspended), jobs=states)
        return plan.requeue_seconds

    async def observe(self, key: PipelineKey, spec: DiffusionPipelineSpec) -> ObservedPipeline:
        """What a pass over the pipeline would observe, with this spec; nothing is written."""
        live = await self._client.get(Reference(KIND, key.namespace, key.name))
        resource = live or {"metadata": {"uid": "", "generation": 0}}
        return await self._observe(Owner(key.name, key.namespace, resource["metadata"]["uid"]), resource, spec)

    async def _plan_and_act(self, observed: ObservedPipeline) -> Plan:
        """Plan, observe what the plan needs, plan again, act; a refused action changes the plan's conditions."""
        context = plan_context(observed, self._settings)
        inputs = planning(context)
        plan = inputs.plan()
        if not plan.needs.metrics:
            self._scraper.forget(f"{observed.owner.namespace}/{observed.owner.name}")
        if plan.needs:
            observed = await self._observe_needs(observed, plan.needs)
            # The builds are the same: nothing that they depend on was observed again.
            inputs = planning(replace(context, observed=observed))
            plan = inputs.plan()
        refusals = await self._act(plan, observed)
        return inputs.plan(refusal_condition(refusals)) if refusals else plan

    async def _act(self, plan: Plan, observed: ObservedPipeline) -> list[Refusal]:
        """Execute the plan's actions; one that is refused keeps only those back that build on it."""
        refusals: list[Refusal] = []
        for action in plan.actions:
            if has_to_wait(action, observed, refusals):
                continue
            subject = action_subject(action, observed)
            try:
                await self._execute(action, observed)
            except NameConflictError as error:
                refusals.append(Refusal(action, subject, Reason.NAME_CONFLICT, str(error)))
            except RejectedError as error:
                refusals.append(Refusal(action, subject, Reason.OBJECT_REJECTED, str(error)))
        return refusals

    # Observe.

    async def _observe(self, owner: Owner, resource: JsonObject, spec: DiffusionPipelineSpec) -> ObservedPipeline:
        namespace = owner.namespace
        owned = f"{naming.MANAGED_SELECTOR},{naming.PIPELINE}={owner.name}"
        member = f"{naming.MANAGED_SELECTOR},{naming.needed_by_label(owner.name)}"
        answering = f"{owned},{naming.ROLE} in ({naming.SERVING},{naming.API})"
        jobs, deployments, services, pods, claims, (policies, routes) = await asyncio.gather(
            self._client.select(Reference("Job", namespace), member),
            self._owned(("Deployment",), owner, owned, lambda _, body: DeploymentView.parse(body)),
            self._owned(("Service",), owner, owned, lambda _, body: ServiceView.parse(body)),
            self._client.select(Reference("Pod", namespace), answering),
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
            now=datetime.now(UTC),
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
            *(self._client.select(Reference(kind, owner.namespace), selector) for kind in kinds)
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
        names = sorted(manifest["metadata"]["name"] for manifest in manifests if needs_pods(manifest))
        pods: dict[str, list[PodView]] = defaultdict(list)
        if names:
            selector = f"{JOB_NAME} in ({','.join(names)})"
            for body in await self._client.select(Reference("Pod", owner.namespace), selector):
                pod = PodView.parse(body, gpu_labels)
                pods[pod.job].append(pod)
        failures = await self._pod_failures(owner, [item for item in manifests if lacks_pods(item, pods)])
        views = (
            JobView.parse(item, pods[item["metadata"]["name"]], failures.get(item["metadata"]["uid"], ""))
            for item in manifests
        )
        return tuple(view for view in views if view.is_owned_by(owner.uid))

    async def _pod_failures(self, owner: Owner, manifests: Sequence[JsonObject]) -> dict[str, str]:
        """Why these Jobs get no pods, by UID: the newest message of each, which only Events have."""
        if not manifests:
            return {}
        selector = "involvedObject.kind=Job,reason=FailedCreate"
        try:
            events = await self._client.select(Reference("Event", owner.namespace), "", selector)
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
        manifest = await self._client.get(Reference("PersistentVolumeClaim", namespace, name))
        return ClaimView.parse(manifest) if manifest is not None else None

    async def _observe_needs(self, observed: ObservedPipeline, needs: ObservationRequest) -> ObservedPipeline:
        """Also what the plan needs: users of the store, metrics of canaries and experiments."""
        if needs.store is not None:
            observed = replace(observed, live_digests=await self._live_digests(observed.owner, needs.store))
        if needs.metrics:
            pipeline = f"{observed.owner.namespace}/{observed.owner.name}"
            observed = replace(observed, windows=await self._scraper.windows(pipeline, needs.metrics))
        return observed

    async def _live_digests(self, owner: Owner, store: StoreClaim) -> frozenset[str]:
        """Artifacts that any pipeline of the namespace needs; empty when another pipeline collects the garbage."""
        namespace, managed = owner.namespace, naming.MANAGED_SELECTOR
        manifests = await self._client.select(Reference(KIND, namespace), "")
        pipelines = pipelines_on(store, map(PipelineView.parse, manifests))
        if gc_owner(pipelines) != owner.name:
            return frozenset()
        jobs, deployments = await asyncio.gather(
            self._client.select(Reference("Job", namespace), managed),
            self._client.select(Reference("Deployment", namespace), managed),
        )
        users = StoreUsers(pipelines, map(JobView.parse, jobs), map(DeploymentView.parse, deployments))
        return live_digests(users, store)

    # Act.

    async def _execute(self, action: actions.Action, observed: ObservedPipeline) -> None:
        owner = observed.owner
        match action:
            case actions.Apply(body, initial):
                live = observed.find(body["kind"], body["metadata"]["name"])
                if await self._client.apply(body, live.manifest if live is not None else None, initial):
                    log.info("%s: applied %s %s", owner.name, body["kind"], body["metadata"]["name"])
            case actions.Scale(name, replicas):
                log.info("%s: scaling %s to %d", owner.name, name, replicas)
                await self._client.patch(
                    Reference("Deployment", owner.namespace, name), {"spec": {"replicas": replicas}}
                )
            case actions.Annotate(name, key, value):
                log.info("%s: %s: %s", owner.name, name, value)
                head = {"annotations": {key: value}}
                await self._client.patch(Reference("Deployment", owner.namespace, name), {"metadata": head})
            case actions.DeleteObject(kind, name, uid):
                log.info("%s: deleting %s %s", owner.name, kind, name)
                await self._client.delete(Reference(kind, owner.namespace, name), uid)
            case _:
                await self._execute_job_action(action, owner)

    async def _execute_job_action(self, action: actions.Action, owner: Owner) -> None:
        match action:
            case actions.StartJob(body):
                await self._start(body)
            case actions.RestartJob(name, uid, version, body):
                log.info("%s: restarting Job %s", owner.name, name)
                await self._client.delete(Reference("Job", owner.namespace, name), uid, version)
                await self._start(body)
            case actions.RecordResult(name, record, labels):
                head = {"annotations": {naming.RESULT: record}, "labels": {naming.QUEUE: None}}
                await self._client.patch(Reference("Job", owner.namespace, name), {"metadata": head})
                self._metrics.observe_build(labels, json.loads(record))
            case actions.EndJob(name, version):
                log.info("%s: ending Job %s: only containers that are not ours still run", owner.name, name)
                body = {"metadata": {"resourceVersion": version}, "spec": {"activeDeadlineSeconds": 1}}
                await self._client.patch(Reference("Job", owner.namespace, name), body)
            case actions.AdmitJobs(sku):
                await self._admit(sku)
            case actions.DeleteJob(name, uid, version):
                log.info("%s: deleting Job %s: no longer needed", owner.name, name)
                await self._client.delete(Reference("Job", owner.namespace, name), uid, version)
            case actions.ReleaseJob(name, label, uid):
                head = {"labels": {label: None}, "ownerReferences": [{"$patch": "delete", "uid": uid}]}
                await self._client.patch(Reference("Job", owner.namespace, name), {"metadata": head})

    async def _admit(self, sku: str) -> None:
        """Admit waiting compile Jobs. One call at a time: two that count at once would admit too many."""
        async with self._admission:
            selector = f"{naming.MANAGED_SELECTOR},{naming.QUEUE}={sku}"
            manifests: list[JsonObject] = []
            for namespace in self._settings.watch_namespaces or ("",):
                manifests += await self._client.select(Reference("Job", namespace), selector)
            jobs = [JobView.parse(manifest) for manifest in manifests]
            for job in admissible_jobs(jobs, self._settings.compile_jobs_per_sku):
                log.info("admitted Job %s/%s", job.namespace, job.name)
                await self._client.patch(Reference("Job", job.namespace, job.name), {"spec": {"suspend": False}})

    async def _start(self, body: JsonObject) -> None:
        """Create the Job, or join the one that another pipeline has started for the same artifact."""
        name = body["metadata"]["name"]
        if await self._client.create(body):
            log.info("started Job %s", name)
            return
        labels = {key: value for key, value in body["metadata"]["labels"].items() if naming.is_needed_by_label(key)}
        head = {"ownerReferences": body["metadata"]["ownerReferences"], "labels": labels}
        await self._client.patch(kube_client.reference(body), {"metadata": head})
        log.info("sharing Job %s", name)

    async def _write_status(self, owner: Owner, resource: JsonObject, plan: Plan) -> None:
        """Events first: their names make them safe to send twice; a written status prevents a second report."""
        now = rfc3339(datetime.now(UTC))
        for pending in plan.events:
            try:
                await self._client.create(event_manifest(pending, owner, resource["metadata"]["generation"], now))
            except RejectedError as error:
                # A namespace that is being deleted takes no Events; the status is still written.
                log.warning("%s: Event rejected: %s", owner.name, error)
        status = to_manifest(plan.status)
        if status != resource.get("status"):
            await self._client.write_status(Reference(KIND, owner.namespace, owner.name), status)


def _of_role(role: str, views: Iterable[View]) -> tuple[View, ...]:
    return tuple(view for view in views if view.labels.get(naming.ROLE) == role)


def _rejection(resource: JsonObject, error: ValidationError) -> Plan:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    message = f"spec.{field}: {first['msg']}. Is the CRD older or newer than the operator?"
    generation = resource["metadata"]["generation"]
    return rejection(generation, datetime.now(UTC), resource.get("status", {}), message)
