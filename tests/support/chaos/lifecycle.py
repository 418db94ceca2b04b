"""One pipeline's life: build, serve, canary, promote, roll back, delete; with what has to hold all along."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.kube_client import MERGE, Reference
from tests.support.operator.fleet import Fleet, claim, pipeline, revision, simulate_controllers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.chaos.api import ApiClient

JsonObject = dict[str, Any]
NAME, TARGET = "shapes", "cpu"
POLL_SECONDS = 0.25
STAGE_SECONDS = 240.0
CHILDREN = ("Job", "Deployment", "Service", "PodDisruptionBudget")
_STEPS = [{"weight": 10, "pause": "1s"}, {"weight": 50, "pause": "1s"}]


class StageError(Exception):
    """A stage was not reached in time, or something that has to hold did not."""


@dataclass(frozen=True)
class Namespace(Fleet):
    """One namespace, as simulated controllers take it."""

    pipelines: int = 1
    namespaces: int = 1
    name: str = ""

    def all_namespaces(self) -> list[str]:
        """Only this one."""
        return [self.name]


@dataclass
class Life:
    """One pipeline in a namespace of its own.

    Attributes:
        client: of the API server itself, not of a proxy.
        tick: called between two looks; starts the operator again.
        unserved: how often a look has found nothing ready behind the Service of a pipeline that served before.
    """

    client: ApiClient
    namespace: str
    tick: Callable[[], None]
    served: bool = False
    unserved: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The pipeline."""
        return Reference(KIND, self.namespace, NAME)

    async def live(self) -> JsonObject:
        """From the first Job to the rollback; returns the end state.

        Raises:
            StageError: a stage was not reached.
        """
        await self.create()
        await self.until("serves", self.is_ready)
        self.served = True
        first = await self.stable()
        await self._change({"serving": {"image": "s:2"}})
        await self.until("has a canary", self.has_canary)
        canary = await self._canary()
        await self.client.patch(self.reference, {"metadata": {"annotations": {naming.PROMOTE: canary}}}, MERGE)
        await self.until("is promoted", lambda: self._serves(canary))
        await self.until("is ready with the canary", self.is_ready)
        await self._change({"rollout": {"rollbackTo": first}})
        await self.until("is rolled back", lambda: self._serves(first))
        await self.until("is settled", self.is_settled)
        return await self.end_state()

    async def create(self) -> None:
        """The namespace, the store and the pipeline."""
        await self.client.make_namespace(self.namespace)
        await self.client.create(claim(self.namespace))
        body = pipeline(self.reference, revision(1))
        body["spec"] |= {"serving": {"image": "s:1"}, "rollout": {"steps": _STEPS}}
        await self.client.create(body)

    async def delete(self) -> None:
        """Delete the pipeline, and what it owns as the garbage collector would.

        Raises:
            StageError: something was made for it afterwards.
        """
        self.served = False
        await self.client.remove(self.reference)
        quiet = 0
        end = time.monotonic() + STAGE_SECONDS
        while quiet < 4:
            if time.monotonic() > end:
                raise StageError("objects are made for a deleted pipeline, again and again")
            self.tick()
            present = [(kind, item) for kind in CHILDREN for item in await self._children(kind)]
            for kind, item in present:
                await self.client.remove(Reference(kind, self.namespace, item["metadata"]["name"]))
            quiet = 0 if present else quiet + 1
            await asyncio.sleep(POLL_SECONDS)

    async def until(self, stage: str, reached: Callable[[], Awaitable[bool]], seconds: float = STAGE_SECONDS) -> None:
        """Play the controllers until a stage is reached.

        Raises:
            StageError: it is not, within the time of a stage.
        """
        start = time.monotonic()
        while not await reached():
            if time.monotonic() - start > seconds:
                raise StageError(f"the pipeline is not reached: {stage}; {await self._summary()}")
            self.tick()
            await self.play()
            await asyncio.sleep(POLL_SECONDS)
        self.stages[stage] = time.monotonic() - start

    async def play(self) -> None:
        """What controllers and builder would do now; and what has to hold all along."""
        await simulate_controllers(self.client, Namespace(name=self.namespace))
        await self._check_served()

    async def end_state(self) -> JsonObject:
        """What is there, without names that depend on the namespace."""
        jobs = Counter(_job(item) for item in await self._children("Job"))
        images = {item["metadata"]["name"]: _image(item) for item in await self._children("Deployment")}
        deployments = Counter(
            f"{_image(item)} {item['spec']['replicas']}" for item in await self._children("Deployment")
        )
        stable = images.get(f"{NAME}-{TARGET}-{await self.stable()}")
        status = (await self.client.get(self.reference) or {}).get("status", {})
        conditions = {f"{item['type']}={item['status']} {item['reason']}" for item in status["conditions"]}
        return {
            "jobs": dict(sorted(jobs.items())),
            "deployments": dict(sorted(deployments.items())),
            "services": len(await self._children("Service")),
            "budgets": len(await self._children("PodDisruptionBudget")),
            "stable": stable,
            "conditions": sorted(conditions),
            "summary": status.get("summary"),
        }

    async def _children(self, kind: str) -> list[JsonObject]:
        return await self.client.select(Reference(kind, self.namespace), naming.MANAGED_SELECTOR)

    async def _change(self, spec: JsonObject) -> None:
        await self.client.patch(self.reference, {"spec": spec}, MERGE)

    async def _status(self) -> tuple[JsonObject, bool]:
        """The status, and whether it is of the present spec."""
        resource = await self.client.get(self.reference) or {"metadata": {}}
        status: JsonObject = resource.get("status", {})
        return status, status.get("observedGeneration") == resource["metadata"].get("generation")

    async def is_ready(self) -> bool:
        """Whether the present spec is served."""
        status, is_present = await self._status()
        return is_present and _state(status, "Ready") == "True"

    async def is_settled(self) -> bool:
        """Whether the present spec is served, and nothing else."""
        status, is_present = await self._status()
        return is_present and all(_state(status, name) == "True" for name in ("Ready", "RolloutComplete"))

    async def stable(self) -> str:
        """The revision behind the target's Service; empty when there is none."""
        service = await self.client.get(Reference("Service", self.namespace, f"{NAME}-{TARGET}"))
        return str((service or {"metadata": {}})["metadata"].get("annotations", {}).get(naming.STABLE, ""))

    async def _serves(self, revision_id: str) -> bool:
        return await self.stable() == revision_id

    async def _canary(self) -> str:
        """Revision of the ready Deployment that is not the stable one; empty when there is none."""
        stable = await self.stable()
        for item in await self._children("Deployment"):
            name = item["metadata"]["labels"][naming.REVISION]
            if name != stable and item.get("status", {}).get("readyReplicas"):
                return str(name)
        return ""

    async def has_canary(self) -> bool:
        """Whether another revision than the stable one is ready."""
        return bool(await self._canary())

    async def _check_served(self) -> None:
        """What served once has a ready Deployment behind its Service, always."""
        if not self.served:
            return
        service = await self.client.get(Reference("Service", self.namespace, f"{NAME}-{TARGET}"))
        selector = (service or {"spec": {}})["spec"].get("selector", {})
        deployments = await self._children("Deployment")
        behind = [
            item
            for item in deployments
            if selector and selector.items() <= item["spec"]["template"]["metadata"]["labels"].items()
        ]
        if not any(item.get("status", {}).get("readyReplicas") and item["spec"]["replicas"] for item in behind):
            self.unserved.append(f"nothing is ready behind the Service with {selector}")

    async def _summary(self) -> str:
        status, is_present = await self._status()
        return f"status of the present spec: {is_present}, {status.get('conditions')}"


def _state(status: JsonObject, kind: str) -> str:
    return next((item["status"] for item in status.get("conditions", []) if item["type"] == kind), "")


def _job(item: JsonObject) -> str:
    labels = item["metadata"]["labels"]
    outcome = next(
        (entry["type"] for entry in item.get("status", {}).get("conditions", []) if entry["type"] == "Complete"), ""
    )
    return f"{labels[naming.STAGE]} {labels.get(naming.COMPONENT, '')} {outcome}"


def _image(item: JsonObject) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])
