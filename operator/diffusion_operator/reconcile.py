"""One pass over one pipeline: observe, plan, act, write the status."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator import cluster as clusters
from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.cluster import Cluster, NameTakenError, Reference, RefusedError
from diffusion_operator.conditions import Finding, Reason, Type
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.event import event
from diffusion_operator.manifests.route import KINDS as ROUTES
from diffusion_operator.metrics import Metrics, Readiness
from diffusion_operator.plan import Plan, actions, budget, plan, rejected, store_to_collect
from diffusion_operator.plan.collection import Neighbours, collector, needed, users
from diffusion_operator.plan.jobs import JobView, is_finished, rfc3339, view
from diffusion_operator.plan.observed import Claims, Observed, claim_name
from diffusion_operator.plan.parts import origins
from diffusion_operator.plan.policies import KINDS as BESIDE
from diffusion_operator.probe import Probe
from diffusion_operator.settings import Settings
from diffusion_operator.watching import watched

JsonObject = dict[str, Any]
POLICIES = (*BESIDE, *ROUTES)
log = logging.getLogger(__name__)

JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True)
class Key:
    """Which pipeline."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Reconciler:
    """Brings pipelines to what their spec says, one pass at a time."""

    def __init__(
        self, cluster: Cluster, settings: Settings, metrics: Metrics | None = None, probe: Probe | None = None
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._admission = asyncio.Lock()
        self._metrics = metrics or Metrics()
        self._probe = probe or Probe()

    async def reconcile(self, key: Key) -> float | None:
        """One pass.

        Returns:
            Seconds after which to look again, or None when an event will tell.

        Raises:
            UnavailableError: the API server cannot be reached now.
            ConflictError: something changed in between.
        """
        resource = await self._cluster.get(Reference(KIND, key.namespace, key.name))
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._metrics.forgot(str(key))
            self._probe.forget(str(key))
            return None
        owner = Owner(key.name, key.namespace, resource["metadata"]["uid"])
        jobs: tuple[JobView, ...] = ()
        try:
            spec = DiffusionPipelineSpec.model_validate(resource.get("spec", {}))
        except ValidationError as error:
            made = _rejected(resource, error)
        else:
            seen = await self._observe(owner, resource, spec)
            observed = await self._with_windows(await self._with_shared(seen), key)
            made, jobs = await self._act(observed), observed.jobs
        await self._report(owner, resource, made)
        states = [(f"{key.namespace}/{job.name}", job.stage, job.phase) for job in jobs]
        suspended = resource.get("spec", {}).get("suspend") is True
        self._metrics.saw(str(key), ready=Readiness(*made.ready, suspended=suspended), jobs=states)
        return made.again_seconds

    async def look(self, key: Key, spec: DiffusionPipelineSpec) -> Observed:
        """What a pass over the pipeline would see, with this spec; nothing is written."""
        found = await self._cluster.get(Reference(KIND, key.namespace, key.name))
        resource = found or {"metadata": {"uid": "", "generation": 0}}
        return await self._observe(Owner(key.name, key.namespace, resource["metadata"]["uid"]), resource, spec)

    async def _act(self, observed: Observed) -> Plan:
        made = plan(observed, self._settings)
        try:
            for action in made.actions:
                await self._carry_out(action, observed)
        except (NameTakenError, RefusedError) as error:
            reason = Reason.NAME_TAKEN if isinstance(error, NameTakenError) else Reason.OBJECT_REFUSED
            refused = Finding(Type.ACCEPTED, ok=False, reason=reason, message=str(error))
            return plan(observed, self._settings, refused)
        return made

    async def _observe(self, owner: Owner, resource: JsonObject, spec: DiffusionPipelineSpec) -> Observed:
        namespace = owner.namespace
        mine = f"{naming.MANAGED_SELECTOR},{naming.PIPELINE}={owner.name}"
        member = f"{naming.MANAGED_SELECTOR},{naming.membership(owner.name)}"
        serving = f"{mine},{naming.ROLE}={naming.SERVING}"
        policies = asyncio.gather(*(self._cluster.select(Reference(kind, namespace), mine) for kind in POLICIES))
        jobs, deployments, services, pods, claims, beside = await asyncio.gather(
            self._cluster.select(Reference("Job", namespace), member),
            self._cluster.select(Reference("Deployment", namespace), mine),
            self._cluster.select(Reference("Service", namespace), mine),
            self._cluster.select(Reference("Pod", namespace), serving),
            self._claims(owner, spec),
            policies,
        )
        job_pods = await self._job_pods(namespace, jobs)
        return Observed(
            owner=owner,
            generation=resource["metadata"]["generation"],
            spec=spec,
            now=datetime.now(UTC),
            status=resource.get("status", {}),
            annotations=resource["metadata"].get("annotations", {}),
            claims=claims,
            jobs=tuple(view(job, job_pods[job["metadata"]["name"]]) for job in jobs if _is_owned(job, owner)),
            deployments=tuple(item for item in deployments if _is_owned(item, owner)),
            services=tuple(item for item in services if _is_owned(item, owner)),
            serving_pods=tuple(pods),
            policies={
                kind: tuple(item for item in items if _is_owned(item, owner))
                for kind, items in zip(POLICIES, beside, strict=True)
            },
        )

    async def _with_windows(self, observed: Observed, key: Key) -> Observed:
        """Also what both sides of a canary answered since its step began."""
        return replace(observed, windows=await self._probe.windows(str(key), watched(observed)))

    async def _with_shared(self, observed: Observed) -> Observed:
        """Also what others need of the store, when this pipeline is to clean it: lists of the whole namespace."""
        store = store_to_collect(observed, self._settings)
        if store is None:
            return observed
        namespace, mine = observed.owner.namespace, naming.MANAGED_SELECTOR
        pipelines = users(await self._cluster.select(Reference(KIND, namespace), ""), store)
        if collector(pipelines) != observed.owner.name:
            return observed
        jobs, deployments = await asyncio.gather(
            self._cluster.select(Reference("Job", namespace), mine),
            self._cluster.select(Reference("Deployment", namespace), mine),
        )
        return replace(observed, keep=needed(Neighbours(pipelines, jobs, deployments), store))

    async def _claims(self, owner: Owner, spec: DiffusionPipelineSpec) -> Claims:
        kind = "PersistentVolumeClaim"
        store = await self._cluster.get(Reference(kind, owner.namespace, claim_name(spec, owner.name)))
        if store is not None and spec.storage.claim_name is None and not _is_owned(store, owner):
            store = None
        named = [origin.source.persistent_volume_claim for origin in origins(spec.model).values()]
        names = sorted({claim.claim_name for claim in named if claim is not None})
        found = await asyncio.gather(*(self._cluster.get(Reference(kind, owner.namespace, name)) for name in names))
        return Claims(store, tuple(name for name, claim in zip(names, found, strict=True) if claim is None))

    async def _job_pods(self, namespace: str, jobs: Sequence[JsonObject]) -> dict[str, list[JsonObject]]:
        """Pods of the Jobs whose own object does not yet say everything, by Job."""
        names = [job["metadata"]["name"] for job in jobs if not _is_settled(job)]
        found: dict[str, list[JsonObject]] = defaultdict(list)
        if names:
            selector = f"{JOB_NAME} in ({','.join(sorted(names))})"
            for pod in await self._cluster.select(Reference("Pod", namespace), selector):
                found[pod["metadata"]["labels"][JOB_NAME]].append(pod)
        return found

    async def _carry_out(self, action: actions.Action, observed: Observed) -> None:
        match action:
            case actions.Apply(body, initial):
                if await self._cluster.apply(body, observed.find(body["kind"], body["metadata"]["name"]), initial):
                    log.info("%s: applied %s %s", observed.owner.name, body["kind"], body["metadata"]["name"])
            case actions.Scale(name, replicas):
                target = Reference("Deployment", observed.owner.namespace, name)
                log.info("%s: scaling %s to %d", observed.owner.name, name, replicas)
                await self._cluster.patch(target, {"spec": {"replicas": replicas}})
            case actions.Annotate(name, key, value):
                target = Reference("Deployment", observed.owner.namespace, name)
                log.info("%s: %s: %s", observed.owner.name, name, value)
                await self._cluster.patch(target, {"metadata": {"annotations": {key: value}}})
            case actions.Remove(kind, name, uid):
                log.info("%s: removing %s %s", observed.owner.name, kind, name)
                await self._cluster.delete(Reference(kind, observed.owner.namespace, name), uid)
            case _:
                await self._carry_out_job(action, observed.owner)

    async def _carry_out_job(self, action: actions.Action, owner: Owner) -> None:
        match action:
            case actions.StartJob(body):
                await self._start(body)
            case actions.RestartJob(name, uid, version, body):
                log.info("%s: starting Job %s anew", owner.name, name)
                await self._cluster.delete(Reference("Job", owner.namespace, name), uid, version)
                await self._start(body)
            case actions.KeepResult(name, result, labels):
                head = {"annotations": {naming.RESULT: result}, "labels": {naming.QUEUE: None}}
                await self._cluster.patch(Reference("Job", owner.namespace, name), {"metadata": head})
                self._metrics.built(labels, json.loads(result))
            case actions.Admit(sku):
                await self._admit(sku)
            case actions.DeleteJob(name, uid, version):
                log.info("%s: Job %s is not needed any more", owner.name, name)
                await self._cluster.delete(Reference("Job", owner.namespace, name), uid, version)
            case actions.LeaveJob(name, membership, uid):
                leave = {"labels": {membership: None}, "ownerReferences": [{"$patch": "delete", "uid": uid}]}
                await self._cluster.patch(Reference("Job", owner.namespace, name), {"metadata": leave})

    async def _admit(self, sku: str) -> None:
        """Let waiting compile Jobs go. One after the other: two passes that count at once would let too many go."""
        async with self._admission:
            selector = f"{naming.MANAGED_SELECTOR},{naming.QUEUE}={sku}"
            jobs: list[JsonObject] = []
            for namespace in self._settings.watch_namespaces or ("",):
                jobs += await self._cluster.select(Reference("Job", namespace), selector)
            for job in budget.admitted(jobs, self._settings.compile_jobs_per_sku):
                log.info("Job %s/%s may start", job["metadata"]["namespace"], job["metadata"]["name"])
                await self._cluster.patch(clusters.reference({"kind": "Job", **job}), {"spec": {"suspend": False}})

    async def _start(self, body: JsonObject) -> None:
        """Create the Job, or join the one that another pipeline has started for the same artifact."""
        name = body["metadata"]["name"]
        if await self._cluster.create(body):
            log.info("started Job %s", name)
            return
        head = {key: body["metadata"][key] for key in ("ownerReferences",)}
        labels = {key: value for key, value in body["metadata"]["labels"].items() if naming.is_membership(key)}
        await self._cluster.patch(clusters.reference(body), {"metadata": {**head, "labels": labels}})
        log.info("joined Job %s", name)

    async def _report(self, owner: Owner, resource: JsonObject, made: Plan) -> None:
        """Events first: their names make them safe to send twice; a written status tells nothing twice."""
        now = rfc3339(datetime.now(UTC))
        for note in made.notes:
            try:
                await self._cluster.create(event(note, owner, resource["metadata"]["generation"], now))
            except RefusedError as error:
                # A namespace that is being deleted takes no Events; the status still goes.
                log.warning("%s: an Event was refused: %s", owner.name, error)
        wanted = made.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if wanted != resource.get("status"):
            await self._cluster.write_status(Reference(KIND, owner.namespace, owner.name), wanted)


def _rejected(resource: JsonObject, error: ValidationError) -> Plan:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = f"spec.{field}: {first['msg']}. Is the CRD older or newer than the operator?"
    generation = resource["metadata"]["generation"]
    return rejected(generation, datetime.now(UTC), resource.get("status", {}), message)


def _is_settled(job: JsonObject) -> bool:
    return is_finished(job) and naming.RESULT in job["metadata"].get("annotations", {})


def _is_owned(item: JsonObject, owner: Owner) -> bool:
    """False for what a deleted pipeline of the same name has left and Kubernetes has not yet collected."""
    return any(reference["uid"] == owner.uid for reference in item["metadata"].get("ownerReferences", []))
