"""Area `edits`: two writers of one pipeline at once, and people who edit and delete what the operator made."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from diffusion_operator import naming
from diffusion_operator.errors import OperatorError
from diffusion_operator.kube_client import MERGE, Reference, connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally
from tests.support.chaos.lifecycle import NAME, TARGET, Life, StageError
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.chaos.proxy import FaultProxy, Upstream

JsonObject = dict[str, Any]
AREA = "edits"
NAMESPACE = "edits"
_EDITS, _DAMAGES = 1000, 24
_REPAIR_SECONDS = 30.0
_SERVICE = f"{NAME}-{TARGET}"


async def edits(run: Run) -> list[Row]:
    """A person and a GitOps engine change one pipeline; then its children are changed and deleted."""
    async with connect(str(run.server.kubeconfig)) as connection:
        client = ApiClient.over(connection)
        proxy = FaultProxy(Upstream.of(run.server.user_kubeconfig, run.folder), random.Random(run.seed))  # noqa: S311
        async with proxy.serve():
            settings = replace(SETTINGS, watch_namespaces=(NAMESPACE,), identity=AREA)
            runner = OperatorRunner(proxy.kubeconfig(run.folder), settings, run.folder / "operator.log")
            life = Life(client, NAMESPACE, runner.ensure)
            runner.ensure()
            try:
                await life.create()
                await life.until("serves", life.is_ready)
                writers = await _two_writers(run, client, life)
                await life.until("serves the last edit", life.is_ready)
                repairs = Tally()
                for plan in run.plans(AREA, _DAMAGES):
                    repairs.add(await _repair(client, life, plan))
            finally:
                await asyncio.to_thread(runner.stop)
    return [_writers_row(run, writers), _repairs_row(run, repairs)]


async def _two_writers(run: Run, client: ApiClient, life: Life) -> Tally:
    """Merge patches of one field and server-side applies of another, each read back."""
    tally, count = Tally(), max(2, round(_EDITS * run.scale)) if run.only is None else 2

    async def person() -> None:
        for number in range(count // 2):
            if run.is_over:
                break
            await client.patch(
                life.reference, {"spec": {"targets": [{"name": TARGET, "replicas": 1 + number % 3}]}}, MERGE
            )
            await client.patch(life.reference, {"metadata": {"annotations": {"person": str(number)}}}, MERGE)
            tally.add(_lost(f"person {number}", await _note(client, life, "person"), str(number)))

    async def engine() -> None:
        for number in range(count // 2):
            if run.is_over:
                break
            head = {"name": NAME, "namespace": NAMESPACE, "labels": {"engine": str(number)}}
            spec = {"rollout": {"analysis": {"minRequests": number + 1}}}
            body = {"apiVersion": "diffusion-operator.io/v1alpha1", "kind": life.reference.kind, "metadata": head}
            await client.apply_as("gitops", life.reference, body | {"spec": spec})
            live = await client.get(life.reference) or {}
            stored = f"{live['metadata']['labels']['engine']} {live['spec']['rollout']['analysis']['minRequests']}"
            tally.add(_lost(f"engine {number}", stored, f"{number} {number + 1}"))

    await asyncio.gather(person(), engine())
    live = await client.get(life.reference) or {}
    if live["spec"]["serving"].get("image") != "s:1":
        tally.add(Outcome("the image", f"a field that nobody edited has changed: {live['spec']['serving']}"))
    return tally


async def _note(client: ApiClient, life: Life, name: str) -> str:
    live = await client.get(life.reference) or {"metadata": {}}
    return str(live["metadata"].get("annotations", {}).get(name))


def _lost(edit: str, stored: str, expected: str) -> Outcome:
    return Outcome(edit, "" if stored == expected else f"{stored} is stored, {expected} was written")


Damage = Callable[[ApiClient, JsonObject], Awaitable[None]]


async def _redirect(client: ApiClient, service: JsonObject) -> None:
    await client.patch(_at("Service", service), {"spec": {"selector": {naming.REVISION: "00000000"}}}, MERGE)


async def _delete(client: ApiClient, service: JsonObject) -> None:
    await client.remove(_at("Service", service))


async def _change_image(client: ApiClient, deployment: JsonObject) -> None:
    containers = [{"name": naming.SERVER, "image": "someone/elses:1"}]
    await client.patch(_at("Deployment", deployment), {"spec": {"template": {"spec": {"containers": containers}}}})


async def _change_replicas(client: ApiClient, deployment: JsonObject) -> None:
    await client.patch(_at("Deployment", deployment), {"spec": {"replicas": 7}}, MERGE)


async def _delete_deployment(client: ApiClient, deployment: JsonObject) -> None:
    await client.remove(_at("Deployment", deployment))


async def _delete_budget(client: ApiClient, budget: JsonObject) -> None:
    await client.remove(_at("PodDisruptionBudget", budget))


DAMAGES: dict[str, tuple[str, Damage]] = {
    "another selector": ("Service", _redirect),
    "a deleted Service": ("Service", _delete),
    "another image": ("Deployment", _change_image),
    "another number of pods": ("Deployment", _change_replicas),
    "a deleted Deployment": ("Deployment", _delete_deployment),
    "a deleted budget": ("PodDisruptionBudget", _delete_budget),
}


def _at(kind: str, item: JsonObject) -> Reference:
    return Reference(kind, NAMESPACE, item["metadata"]["name"])


async def _repair(client: ApiClient, life: Life, plan: Plan) -> Outcome:
    """Seconds until what was damaged is as before."""
    title, (kind, damage) = list(DAMAGES.items())[plan.number % len(DAMAGES)]
    before = await _children(client, kind)
    [victim, *_] = [item for item in before.values() if kind != "Deployment" or item["spec"]["replicas"]]
    try:
        await damage(client, victim)
        start = time.monotonic()
        await life.until("is repaired", lambda: _is_as(client, kind, before), _REPAIR_SECONDS)
    except (OperatorError, StageError) as error:
        return Outcome(f"{plan.id} ({title})", str(error))
    return Outcome(f"{plan.id} ({title})", numbers={"repair": time.monotonic() - start})


async def _children(client: ApiClient, kind: str) -> dict[str, JsonObject]:
    return {item["metadata"]["name"]: item for item in await client.select(Reference(kind, NAMESPACE), "")}


async def _is_as(client: ApiClient, kind: str, before: dict[str, JsonObject]) -> bool:
    now = await _children(client, kind)
    return now.keys() >= before.keys() and all(_essence(now[name]) == _essence(item) for name, item in before.items())


def _essence(item: JsonObject) -> JsonObject:
    """The spec, without what the API server gives out anew."""
    given = {"clusterIP", "clusterIPs"}
    return {key: value for key, value in item["spec"].items() if key not in given}


def _writers_row(run: Run, tally: Tally) -> Row:
    return tally.row(
        run,
        area=AREA,
        promise="A person (merge patches) and a GitOps engine (server-side apply) change one pipeline at once, "
        "while the operator writes its status: every edit is stored, and no other field changes",
        bound="0 lost",
        measured=f"{len(tally.failures)} of {len(tally.outcomes):,} edits lost",
    )


def _repairs_row(run: Run, tally: Tally) -> Row:
    seconds = tally.values("repair")
    return tally.row(
        run,
        area=AREA,
        promise=f"Somebody edits or deletes an object of a served pipeline: {', '.join(DAMAGES)}; it is repaired",
        bound=f"{_REPAIR_SECONDS:.0f} s",
        measured=f"{max(seconds, default=0):.1f} s at most, {len(tally.failures)} not repaired",
    )
