"""A fleet of pipelines on a real API server, and simulated controllers: Jobs succeed, pods become ready."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffusion_operator import naming
from diffusion_operator.api import API_VERSION, KIND
from diffusion_operator.errors import OperatorError
from diffusion_operator.kube_client import MERGE, KubeClient, Reference, manifest_digest
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster, result_of
from tests.support.operator.reconciling import serve

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonObject = dict[str, Any]
CLAIM = "store"
CHECKPOINTS = 10
"""Per namespace: fine-tunes of one model, with a UNet each and a common text encoder and VAE."""
PARALLEL = 8
SERVER_FIELDS = frozenset({"uid", "resourceVersion", "generation", "creationTimestamp"})


@dataclass(frozen=True)
class Fleet:
    """How many pipelines there are, in how many namespaces."""

    pipelines: int
    namespaces: int

    @property
    def per_namespace(self) -> int:
        """Pipelines in each namespace."""
        return self.pipelines // self.namespaces

    def namespace(self, index: int) -> str:
        """Namespace of a pipeline."""
        return f"team-{index // self.per_namespace}"

    def reference(self, index: int) -> Reference:
        """One pipeline."""
        return Reference(KIND, self.namespace(index), f"pipeline-{index % self.per_namespace}")

    def all_namespaces(self) -> list[str]:
        """Every namespace."""
        return sorted({self.namespace(index) for index in range(self.pipelines)})


def pipeline(target: Reference, revision: str) -> JsonObject:
    """A pipeline with one target and a common store."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": target.name, "namespace": target.namespace},
        "spec": {
            "model": {"source": {"huggingFace": {"repo": "demo/shapes", "revision": revision}}},
            "storage": {"claimName": CLAIM},
            "targets": [{"name": "cpu"}],
        },
    }


def revision(number: int) -> str:
    """A commit id."""
    return f"{number:040x}"


class ControllerClient(KubeClient):
    """The API server as its controllers use it."""

    @classmethod
    def of(cls, cluster: KubeClient) -> ControllerClient:
        """The same connection."""
        return cls(cluster._api)  # noqa: SLF001 - of its own parent class

    async def patch_status(self, target: Reference, status: JsonObject) -> None:
        """Say how an object is."""
        await self.request("PATCH", target.path("status"), {"status": status}, MERGE)

    async def make_namespace(self, name: str) -> None:
        """Create a namespace."""
        head = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.request("POST", "/api/v1/namespaces", head)


async def create(client: ControllerClient, fleet: Fleet) -> None:
    """Namespaces, stores and pipelines that are served already, as an operator has left them.

    One namespace is made in memory by the operator's own passes; every real one is a copy of it.
    """
    model = await asyncio.to_thread(_served, fleet.per_namespace)
    limit = asyncio.Semaphore(PARALLEL)

    async def one(name: str) -> None:
        async with limit:
            await _copy(client, model, name)

    await asyncio.gather(*(one(name) for name in fleet.all_namespaces()))


def _served(count: int) -> list[JsonObject]:
    """All objects of a namespace with so many pipelines; owners first."""
    cluster = FakeCluster()
    asyncio.run(cluster.create(claim(NAMESPACE)))
    for number in range(count):
        target = Reference(KIND, NAMESPACE, f"pipeline-{number}")
        spec = pipeline(target, revision(number % CHECKPOINTS))["spec"]
        cluster.apply_pipeline(target.name, **spec)
        serve(cluster, target.name)
    kinds = {KIND: 0, "PersistentVolumeClaim": 1}
    objects = [{"kind": kind, **item} for (kind, _), item in cluster.objects.items() if kind not in {"Pod", "Event"}]
    return sorted(objects, key=lambda item: kinds.get(item["kind"], 2))


async def _copy(client: ControllerClient, model: list[JsonObject], namespace: str) -> None:
    """Real objects refer to each other by the UIDs that the API server gives."""
    await client.make_namespace(namespace)
    uids: dict[str, str] = {}
    for item in model:
        body = _moved(item, namespace, uids)
        target = Reference(item["kind"], namespace, item["metadata"]["name"])
        if not await client.create(body):
            raise OperatorError(f"{target} exists")
        if item["kind"] in {KIND, "PersistentVolumeClaim"}:
            live_object = await client.get(target)
            uids[item["metadata"]["uid"]] = str(live_object["metadata"]["uid"]) if live_object is not None else ""


def _moved(item: JsonObject, namespace: str, uids: Mapping[str, str]) -> JsonObject:
    """The object in another namespace, as the operator would have applied it there."""
    text = json.dumps({key: value for key, value in item.items() if key != "status"})
    for before, after in uids.items():
        text = text.replace(f'"{before}"', f'"{after}"')
    body: JsonObject = json.loads(text)
    head = body["metadata"] | {"namespace": namespace}
    body["metadata"] = {key: head[key] for key in head if key not in SERVER_FIELDS}
    annotations = body["metadata"].get("annotations", {})
    if naming.APPLIED in annotations and annotations[naming.APPLIED] == manifest_digest(_manifest(item)):
        annotations[naming.APPLIED] = manifest_digest(_manifest(body))
    return body


def _manifest(item: JsonObject) -> JsonObject:
    """What was applied."""
    head = {key: value for key, value in item["metadata"].items() if key not in SERVER_FIELDS}
    annotations = {key: value for key, value in head.pop("annotations", {}).items() if key != naming.APPLIED}
    head |= {"annotations": annotations} if annotations else {}
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": head}


def claim(namespace: str) -> JsonObject:
    """The store of all pipelines of a namespace."""
    access = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    head = {"name": CLAIM, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": head, "spec": access}


async def simulate_controllers(cluster: ControllerClient, fleet: Fleet) -> int:
    """Let every unfinished Job succeed and every Deployment get its pods; returns how many there were."""
    change_count = 0
    for namespace in fleet.all_namespaces():
        jobs = await cluster.select(Reference("Job", namespace), naming.MANAGED_SELECTOR)
        deployments = await cluster.select(Reference("Deployment", namespace), naming.MANAGED_SELECTOR)
        waiting = [_finish(cluster, item) for item in jobs if not item.get("status", {}).get("conditions")]
        waiting += [_start(cluster, item) for item in deployments if _is_short(item)]
        for first in range(0, len(waiting), PARALLEL):
            await asyncio.gather(*waiting[first : first + PARALLEL])
        change_count += len(waiting)
    return change_count


def _is_short(item: JsonObject) -> bool:
    status = item.get("status", {})
    observed = (status.get("readyReplicas", 0), status.get("observedGeneration", 0))
    return observed != (item["spec"]["replicas"], item["metadata"]["generation"])


async def _finish(cluster: ControllerClient, job: JsonObject) -> None:
    """The result goes where the operator keeps it, since there are no pods to say it."""
    target = Reference("Job", job["metadata"]["namespace"], job["metadata"]["name"])
    now = _now()
    conditions = [
        {"type": name, "status": "True", "lastTransitionTime": now, "reason": "CompletionsReached", "message": ""}
        for name in ("SuccessCriteriaMet", "Complete")
    ]
    status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}
    try:
        if naming.RESULT not in job["metadata"].get("annotations", {}):
            note = {"metadata": {"annotations": {naming.RESULT: json.dumps(result_of(job))}}}
            await cluster.patch(target, note, MERGE)
        await cluster.patch_status(target, status)
    except OperatorError as error:
        logging.getLogger(__name__).warning("%s: %s", target.name, error)


async def _start(cluster: ControllerClient, item: JsonObject) -> None:
    target = Reference("Deployment", item["metadata"]["namespace"], item["metadata"]["name"])
    count, now = item["spec"]["replicas"], _now()
    complete = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": ""}
    status = {
        "observedGeneration": item["metadata"]["generation"],
        "replicas": count,
        "updatedReplicas": count,
        "readyReplicas": count,
        "availableReplicas": count,
        "conditions": [{**complete, "lastUpdateTime": now, "lastTransitionTime": now}],
    }
    await cluster.patch_status(target, status)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
