"""Generated custom resources: API server and contract give one answer, and whatever is accepted can be planned."""

from __future__ import annotations

import asyncio
import json
import random
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffusion_contract.documents import InvalidSpecError, read_pipeline, read_spec
from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_operator.api import KIND
from diffusion_operator.kube_client import Reference
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.chaos.generator import CustomResourceGenerator
from tests.support.chaos.plans import Outcome, Plan
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.chaos.api import ApiClient

JsonObject = dict[str, Any]
AREA, TRANSITIONS = "resources", "transitions"
_NOT_PLANNED = frozenset({"Pod", "Event", KIND})
# The API server takes 1.0 for an integer, except where one of its rules reads the field.
_FLOAT = "expected int, got float64"
_WITHOUT_GPUS = Settings("b:1", "s:1")


@dataclass
class Fuzzing:
    """Runs plans against one API server.

    Attributes:
        client: of the API server, with the CRD and a namespace for the dry runs.
        objects: how many planned objects were applied in a dry run, by kind.
    """

    client: ApiClient
    objects: dict[str, int] = field(default_factory=dict)

    async def run(self, plan: Plan) -> Outcome:
        """One document, from admission to the objects that serve it."""
        document = CustomResourceGenerator(plan.seed, plan.number).document()
        objection, stored = await self.client.admit(document, NAMESPACE)
        refusal = contract_refusal(document)
        if bool(objection) != bool(refusal) and _FLOAT not in objection:
            answers = f"API server: {objection or 'accepted'}; contract: {refusal or 'accepted'}"
            return Outcome(plan.id, f"two answers to {json.dumps(document['spec'])}: {answers}")
        if objection:
            return Outcome(plan.id, numbers={"refused": 1})
        failure = _differences(document, stored)
        failure = failure or await self._planned(document["metadata"]["name"], stored["spec"])
        return Outcome(plan.id, failure and f"{failure}; spec {json.dumps(document['spec'])}", {"planned": 1})

    async def _planned(self, name: str, spec: JsonObject) -> str:
        """What is wrong with the objects of a whole build and rollout; empty when nothing is."""
        try:
            cluster = await asyncio.to_thread(_served, name, spec)
        except Exception:  # noqa: BLE001 - any traceback is the failure that is looked for
            return traceback.format_exc(limit=-4)
        claims = {("PersistentVolumeClaim", claim) for claim in _claims(spec)}
        for (kind, object_name), body in sorted(cluster.objects.items()):
            if kind not in _NOT_PLANNED and (kind, object_name) not in claims:
                objection = await self.client.objection({"kind": kind, **body}, NAMESPACE)
                self.objects[kind] = self.objects.get(kind, 0) + 1
                if objection:
                    return f"a planned object is refused: {objection}"
        return ""

    async def transition(self, plan: Plan) -> Outcome:
        """Good, bad, good again on a stored pipeline, with a pass of the reconcile loop after each."""
        generator = random.Random(plan.id)  # noqa: S311 - repeatable on purpose
        first, bad, last = (CustomResourceGenerator(plan.seed, number) for number in _numbers(generator))
        name, namespace = f"t{plan.number}", "transitions"
        target, key = Reference(KIND, namespace, name), PipelineKey(namespace, name)
        reconciler = Reconciler(self.client, _WITHOUT_GPUS if plan.number % 2 else Settings("b:1", "s:1", "t:1", "u:1"))
        good = first.valid()
        await self.client.create({**good, "metadata": {"name": name, "namespace": namespace}})
        try:
            other = {**good, "spec": {**good["spec"], **_movable(last.valid())}}
            for document in (good, bad.changed(good), other, good):
                failure = await self._moved(target, document)
                if failure:
                    return Outcome(plan.id, failure)
                await reconciler.reconcile(key)
                failure = _without_reason(await self.client.get(target) or {})
                if failure:
                    return Outcome(plan.id, f"{failure}; spec {json.dumps(document['spec'])}")
        except Exception:  # noqa: BLE001 - any traceback is the failure that is looked for
            return Outcome(plan.id, traceback.format_exc(limit=-4))
        finally:
            await self._cleaned(target)
        return Outcome(plan.id)

    async def _moved(self, target: Reference, document: JsonObject) -> str:
        objection = await self.client.replace_spec(target, document["spec"])
        refusal = _spec_refusal(document)
        # Only the API server knows the earlier value of what never changes.
        if bool(objection) != bool(refusal) and "spec.storage" not in objection and _FLOAT not in objection:
            return f"two answers to a change to {json.dumps(document['spec'])}: {objection!r} and {refusal!r}"
        return ""

    async def _cleaned(self, target: Reference) -> None:
        """There is no garbage collector."""
        await self.client.remove(target)
        for kind in ("Job", "Deployment", "Service", "PersistentVolumeClaim", "Event"):
            await self.client.remove_all(kind, target.namespace)


def contract_refusal(document: JsonObject) -> str:
    """Why the contract refuses a document; empty when it does not."""
    try:
        read_pipeline(document)
    except InvalidSpecError as error:
        return str(error)
    return ""


def _spec_refusal(document: JsonObject) -> str:
    try:
        read_spec(document["spec"])
    except InvalidSpecError as error:
        return str(error)
    return ""


def _numbers(generator: random.Random) -> Iterator[int]:
    return (generator.randrange(1_000_000) for _ in range(3))


def _movable(document: JsonObject) -> JsonObject:
    """The spec without its storage, most of which never changes."""
    return {key: value for key, value in document["spec"].items() if key != "storage"}


def _differences(document: JsonObject, stored: JsonObject) -> str:
    """The defaults of the schema are those of the models."""
    try:
        from_server = DiffusionPipelineSpec.model_validate(stored["spec"])
    except ValueError as error:
        return f"the operator cannot read what the API server stores: {error}"
    from_person = read_pipeline(document)
    return "" if from_server == from_person else f"defaults differ: {from_server!r} and {from_person!r}"


def _served(name: str, spec: JsonObject) -> FakeCluster:
    cluster = FakeCluster()
    for claim in _claims(spec):
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": {}}
        body["metadata"] = {"name": claim, "namespace": NAMESPACE}
        asyncio.run(cluster.create(body))
    cluster.apply_pipeline(name, **spec)
    serve(cluster, name)
    return cluster


def _claims(value: Any) -> set[str]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        own = {value["claimName"]} if isinstance(value.get("claimName"), str) else set()
        return own.union(*map(_claims, value.values()))
    return set().union(*map(_claims, value)) if isinstance(value, list) else set()


def _without_reason(resource: JsonObject) -> str:
    """A pass always leaves `Accepted`, with a reason where it is false."""
    conditions = {item["type"]: item for item in resource.get("status", {}).get("conditions", [])}
    accepted = conditions.get("Accepted", {})
    if resource.get("status", {}).get("observedGeneration") != resource.get("metadata", {}).get("generation"):
        return "the status is of an earlier generation"
    if accepted.get("status") not in {"True", "False"} or not accepted.get("reason"):
        return f"no verdict: {accepted}"
    return "" if accepted["status"] == "True" or accepted.get("message") else "refused without a message"
