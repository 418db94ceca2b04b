"""Area `definitions`: the CRD is deleted, with every pipeline, and installed again while the operator runs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from diffusion_operator.api import GROUP, PLURAL
from diffusion_operator.errors import OperatorError
from diffusion_operator.kube_client import Reference, connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally, late, median
from tests.support.chaos.lifecycle import Life, StageError
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.paths import CRD

AREA = "definitions"
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"
AWAY_SECONDS = (3.0, 45.0, 15.0)
_BOUND_SECONDS, _LIMIT_SECONDS = 30.0, 240.0
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0


@dataclass
class Kubelet:
    """Starts a process again that has ended, after the pauses of Kubernetes: 10 s, 20 s, 40 s and so on."""

    runner: OperatorRunner
    ends: int = 0
    due: float = 0.0

    def tick(self) -> None:
        """Start it when it is due."""
        if self.runner.is_running:
            self.due = 0.0
        elif not self.due:
            self.due = time.monotonic() + min(_FIRST_PAUSE * 2**self.ends, _LONGEST_PAUSE)
            self.ends += 1
        elif time.monotonic() >= self.due:
            self.runner.ensure()


async def definitions(run: Run) -> list[Row]:
    """One operator that outlives its CRD again and again."""
    tally = Tally()
    async with connect(str(run.server.kubeconfig)) as connection:
        client = ApiClient.over(connection)
        runner = OperatorRunner(
            run.server.user_kubeconfig, replace(SETTINGS, identity=AREA), run.folder / "operator.log"
        )
        runner.ensure()
        kubelet = Kubelet(runner)
        try:
            for plan in run.plans(AREA, len(AWAY_SECONDS)):
                if not run.is_over:
                    tally.add(await _outcome(run, client, kubelet, plan))
        finally:
            await asyncio.to_thread(runner.stop)
    seconds = tally.values("seconds")
    return [
        tally.row(
            run,
            area=AREA,
            promise="The CRD is deleted, with all pipelines, and installed again after 3 to 45 s, while the operator "
            "runs; a process that ends is started again with the pauses of Kubernetes: a new pipeline has a status",
            bound=f"{_BOUND_SECONDS:.0f} s",
            measured=f"{median(seconds):.1f} s after the CRD was there (median), {max(seconds, default=0.0):.1f} s at "
            f"most; {kubelet.ends} ends of the process",
            misses=late(seconds, _BOUND_SECONDS),
        )
    ]


async def _outcome(run: Run, client: ApiClient, kubelet: Kubelet, plan: Plan) -> Outcome:
    away = AWAY_SECONDS[plan.number % len(AWAY_SECONDS)]
    title = f"{plan.id} (away for {away:.0f} s)"
    before, after = (Life(client, f"{AREA}-{plan.number}-{when}", kubelet.tick) for when in ("before", "after"))
    try:
        await before.create()
        await before.until("has a status", lambda: _has_status(client, before.reference), _LIMIT_SECONDS)
        await client.request("DELETE", DEFINITION, {})
        await before.until("is gone with its definition", lambda: _is_gone(client), _LIMIT_SECONDS)
        end = time.monotonic() + away
        await before.until("has been away", lambda: _is_past(end), _LIMIT_SECONDS)
        await asyncio.to_thread(run.server.apply, CRD)
        start = time.monotonic()
        await after.create()
        await after.until("has a status", lambda: _has_status(client, after.reference), _LIMIT_SECONDS)
    except (StageError, OperatorError) as error:
        return Outcome(title, f"{error}; the operator's log ends with: {kubelet.runner.tail()}")
    return Outcome(title, numbers={"seconds": time.monotonic() - start})


async def _has_status(client: ApiClient, target: Reference) -> bool:
    return bool((await client.get(target) or {}).get("status", {}).get("conditions"))


async def _is_gone(client: ApiClient) -> bool:
    return not await client.serves_pipelines()


async def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment
