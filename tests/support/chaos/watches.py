"""Area `watches`: how long a change stays unseen whose watch event is lost, after a 410, and on a dead connection."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from diffusion_operator.errors import OperatorError
from diffusion_operator.kube_client import MERGE, Reference, connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, late, median
from tests.support.chaos.crashes import Stage, run_all, stage_of
from tests.support.chaos.faults import NO_FAULTS, Faults, WatchFault
from tests.support.chaos.lifecycle import NAME, TARGET, Life, StageError
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.chaos.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AREA = "watches"
FAULTS: dict[str, Faults] = {
    "every event lost": Faults(watch=WatchFault.DROP, watch_share=1.0),
    "410 at the next event": Faults(watch=WatchFault.GONE, watch_at=0),
    "a dead connection": Faults(watch=WatchFault.DEAD, watch_at=0),
}
CHANGES = ("a Service is deleted", "another image")
_PLANS, _BOUND_SECONDS, _LIMIT_SECONDS = 12, 75.0, 280.0
_RESYNC_SECONDS = 3600.0


async def watches(run: Run) -> list[Row]:
    """Served pipelines, of which something changes while watches bring nothing."""
    async with connect(str(run.server.kubeconfig)) as connection:
        stage = stage_of(run, ApiClient.over(connection))
        tally = await run_all(run, run.plans(AREA, _PLANS), lambda plan: _outcome(stage, plan))
    seconds = tally.values("seconds")
    return [
        tally.row(
            run,
            area=AREA,
            promise="Every watch event is lost, watches end with 410, or their connections carry nothing more, from "
            "when a pipeline serves on: a deleted Service is made again, and a changed spec is followed, without a "
            "resync",
            bound=f"{_BOUND_SECONDS:.0f} s",
            measured=f"after {median(seconds):.1f} s (median), {max(seconds, default=0.0):.1f} s at most",
            misses=late(seconds, _BOUND_SECONDS),
        )
    ]


async def _outcome(stage: Stage, plan: Plan) -> Outcome:
    kind, change = list(FAULTS)[plan.number % len(FAULTS)], CHANGES[plan.number // len(FAULTS) % len(CHANGES)]
    name = f"{plan.area}-{plan.number}"
    proxy = FaultProxy(stage.upstream, random.Random(f"{stage.seed}/{name}"))  # noqa: S311 - repeatable
    async with proxy.serve():
        settings = replace(SETTINGS, watch_namespaces=(name,), identity=name, resync_seconds=_RESYNC_SECONDS)
        runner = OperatorRunner(proxy.kubeconfig(stage.folder), settings, stage.folder / f"{name}.log")
        life = Life(stage.client, name, runner.ensure)
        runner.ensure()
        try:
            await life.create()
            await life.until("serves", life.is_ready)
            proxy.faults = FAULTS[kind]
            start = time.monotonic()
            await life.until(change, await _change(stage.client, life, change), _LIMIT_SECONDS)
            seconds = time.monotonic() - start
        except (StageError, OperatorError) as error:
            return Outcome(f"{plan.id} ({kind}, {change})", f"{error}; the operator's log ends with: {runner.tail()}")
        finally:
            proxy.faults = NO_FAULTS
            await asyncio.to_thread(runner.stop)
    return Outcome(f"{plan.id} ({kind}, {change})", numbers={"seconds": seconds})


async def _change(client: ApiClient, life: Life, change: str) -> Callable[[], Awaitable[bool]]:
    """Make the change; returns whether the operator has followed it."""
    service = Reference("Service", life.namespace, f"{NAME}-{TARGET}")
    if change == CHANGES[0]:
        await client.remove(service)

        async def is_there() -> bool:
            return await client.get(service) is not None

        return is_there
    await client.patch(life.reference, {"spec": {"serving": {"image": "s:2"}}}, MERGE)

    async def is_followed() -> bool:
        resource = await client.get(life.reference) or {"metadata": {}}
        return bool(resource.get("status", {}).get("observedGeneration") == resource["metadata"].get("generation"))

    return is_followed
