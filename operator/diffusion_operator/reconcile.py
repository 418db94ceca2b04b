"""One pass over one pipeline: observe, plan, (observe what the plan needs, plan again), act, write the status."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import ValidationError

from diffusion_contract.documents import problems_of
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import kube_client, naming
from diffusion_operator.api import KIND
from diffusion_operator.conditions import Reason
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.kube_client import KubeClient, NameConflictError, Reference, RejectedError
from diffusion_operator.manifests.common import Owner, to_manifest
from diffusion_operator.manifests.event import event_manifest
from diffusion_operator.metrics import Metrics, Readiness
from diffusion_operator.metrics_scraper import MetricsScraper
from diffusion_operator.object_cache import ACTING_KINDS, SETTLED_KINDS, CacheReader, ObjectCache
from diffusion_operator.observation import FinishedJobs, Observer
from diffusion_operator.plan import actions
from diffusion_operator.plan.build_jobs import StoreClaim
from diffusion_operator.plan.build_steps import admissible_jobs
from diffusion_operator.plan.context import plan_context
from diffusion_operator.plan.garbage_collection import StoreUsers, gc_owner, live_digests, pipelines_on
from diffusion_operator.plan.observed import ObservedPipeline
from diffusion_operator.plan.planner import ObservationRequest, Plan, planning, rejection
from diffusion_operator.plan.refusals import Refusal, action_subject, has_to_wait, refusal_condition
from diffusion_operator.settings import Settings
from diffusion_operator.views.base import rfc3339
from diffusion_operator.views.job import JobView
from diffusion_operator.views.serving import DeploymentView
from diffusion_operator.views.storage import PipelineView

POLICY_KINDS = ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject")
# The one field that only the operator checks.
OPEN_FIELD = "spec.api.podTemplate"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineKey:
    """Namespace and name of a pipeline."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def local_time() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


class Reconciler:
    """Brings the cluster to the specs of pipelines, one pass at a time."""

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        metrics: Metrics | None = None,
        scraper: MetricsScraper | None = None,
        cache: ObjectCache | None = None,
        now: Callable[[], datetime] = local_time,
    ) -> None:
        self._client = client
        self._settings = settings
        self._cache = cache or ObjectCache()
        self._now = now
        self._in_progress: set[PipelineKey] = set()
        reader, finished_jobs = CacheReader(client, self._cache, ACTING_KINDS) if cache else client, FinishedJobs()
        self._observer = Observer(reader, settings, now, finished_jobs)
        settled_reader = CacheReader(client, self._cache, SETTLED_KINDS)
        self._settled_observer = Observer(settled_reader, settings, now, finished_jobs)
        self._admission = asyncio.Lock()
        self._metrics = metrics or Metrics()
        self._scraper = scraper or MetricsScraper()

    async def reconcile(self, key: PipelineKey, *, after_event: bool = True) -> float | None:
        """One pass.

        Args:
            key: of the pipeline.
            after_event: false when nothing is known to have changed: then what the cache has may show that there is
                nothing to do, unless something is in progress, of which an event may have been lost.

        Returns:
            Seconds until the next pass is due, or None when an event will ask for it.

        Raises:
            UnavailableError: the API server cannot be reached now.
            ConflictError: something changed in between.
        """
        is_at_rest = not after_event and key not in self._in_progress
        if is_at_rest and (settled := await self._settled(key)) is not None:
            return self._record(key, *settled)
        resource = await self._client.get(Reference(KIND, key.namespace, key.name))
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._metrics.remove_pipeline(str(key))
            self._scraper.forget(str(key))
            self._in_progress.discard(key)
            return None
        owner = Owner(key.name, key.namespace, resource["metadata"]["uid"])
        jobs: tuple[JobView, ...] = ()
        try:
            spec = DiffusionPipelineSpec.model_validate(resource.get("spec", {}))
        except ValidationError as error:
            plan = _rejection(resource, error, self._now())
        else:
            observed = await self._observer.observe(owner, resource, spec)
            plan, jobs = await self._plan_and_act(observed), observed.jobs
        await self._write_status(owner, resource, plan)
        return self._record(key, plan, jobs, resource)

    def _record(self, key: PipelineKey, plan: Plan, jobs: Sequence[JobView], resource: JsonObject) -> float | None:
        """Metrics of a pass; returns when the next one is due."""
        states = [(f"{key.namespace}/{job.name}", job.stage, job.phase) for job in jobs]
        suspended = resource.get("spec", {}).get("suspend") is True
        self._metrics.record_pipeline(str(key), ready=Readiness(*plan.ready, suspended=suspended), jobs=states)
        (self._in_progress.discard if plan.requeue_seconds is None else self._in_progress.add)(key)
        return plan.requeue_seconds

    async def _settled(self, key: PipelineKey) -> tuple[Plan, tuple[JobView, ...], JsonObject] | None:
        """The plan of a pipeline for which, by what the cache has, nothing is to be written; else None."""
        ref = Reference(KIND, key.namespace, key.name)
        resource = self._cache.get(ref) if self._cache.is_complete else None
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return None
        try:
            spec = DiffusionPipelineSpec.model_validate(resource.get("spec", {}))
        except ValidationError:
            return None
        owner = Owner(key.name, key.namespace, resource["metadata"]["uid"])
        observed = await self._settled_observer.observe(owner, resource, spec)
        plan = planning(plan_context(observed, self._settings)).plan()
        writes = plan.needs or plan.events or to_manifest(plan.status) != resource.get("status")
        if writes or not all(_is_done(action, observed) for action in plan.actions):
            return None
        return plan, observed.jobs, resource

    async def observe(self, key: PipelineKey, spec: DiffusionPipelineSpec) -> ObservedPipeline:
        """What a pass over the pipeline would observe, with this spec; nothing is written."""
        live = await self._client.get(Reference(KIND, key.namespace, key.name))
        resource = live or {"metadata": {"uid": "", "generation": 0}}
        return await self._observer.observe(Owner(key.name, key.namespace, resource["metadata"]["uid"]), resource, spec)

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
                ref = Reference("Job", owner.namespace, name)
                live = await self._client.patch(ref, {"metadata": head})
                if live is not None:
                    # Before its event comes: the next pass would record, and count, the result again.
                    self._cache.put(ref, live)
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
        now = rfc3339(self._now())
        for pending in plan.events:
            try:
                await self._client.create(event_manifest(pending, owner, resource["metadata"]["generation"], now))
            except RejectedError as error:
                # A namespace that is being deleted takes no Events; the status is still written.
                log.warning("%s: Event rejected: %s", owner.name, error)
        status = to_manifest(plan.status)
        if status != resource.get("status"):
            await self._client.write_status(Reference(KIND, owner.namespace, owner.name), status)


def _is_done(action: actions.Action, observed: ObservedPipeline) -> bool:
    """Whether executing the action would write nothing."""
    if not isinstance(action, actions.Apply):
        return False
    live = observed.find(action.body["kind"], action.body["metadata"]["name"])
    return live is not None and kube_client.is_applied(action.body, live.manifest)


def _rejection(resource: JsonObject, error: ValidationError, now: datetime) -> Plan:
    problem = f"{problems_of(error, 'spec')[0]}."
    # All else was admitted by the API server, by the rules of its CRD.
    hint = "" if problem.startswith(OPEN_FIELD) else " Is the CRD older or newer than the operator?"
    generation = resource["metadata"]["generation"]
    return rejection(generation, now, resource.get("status", {}), problem + hint)
