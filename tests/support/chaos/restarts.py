"""Area `restarts`: the API server itself is stopped, its etcd is compacted, and it starts again with nothing old."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_operator.errors import OperatorError
from diffusion_operator.kube_client import MERGE, Reference, connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally, late, median
from tests.support.chaos.definitions import Kubelet
from tests.support.chaos.lifecycle import NAME, TARGET, Life, StageError
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Outcome, Plan

if TYPE_CHECKING:
    from tests.support.chaos.plans import Row

AREA = "restarts"
AWAY_SECONDS = (5.0, 60.0, 20.0)
SOAK_SECONDS = 600.0
GONE = 410
_BOUND_SECONDS, _LIMIT_SECONDS = 90.0, 400.0


@dataclass(frozen=True)
class Outage:
    """One pipeline that is served, and the time without an API server."""

    run: Run
    client: ApiClient
    life: Life
    kubelet: Kubelet
    seconds: float

    async def outcome(self, title: str) -> Outcome:
        """What the operator does after the API server is back.

        Raises:
            StageError: what serves has been touched, or changes are not followed.
        """
        life = self.life
        await life.create()
        await life.until("serves", life.is_ready)
        life.served, before = True, await self._deployments()
        version = await self._version()
        await self._be_away()
        if not await self._has_forgotten(version):
            raise StageError(f"the API server still knows the version {version}")
        start = time.monotonic()
        await self.client.patch(life.reference, {"spec": {"suspend": False, "serving": {"image": "s:2"}}}, MERGE)
        service = Reference("Service", life.namespace, f"{NAME}-{TARGET}")
        await life.until("follows a changed spec", self._is_observed, _LIMIT_SECONDS)
        followed = time.monotonic() - start
        life.served = False
        await self.client.remove(service)
        start = time.monotonic()
        await life.until("has its Service again", lambda: self._is_there(service), _LIMIT_SECONDS)
        after = await self._deployments()
        if not before.items() <= after.items():
            raise StageError(f"what served has been touched: {before} became {after}")
        if life.unserved:
            raise StageError(life.unserved[0])
        return Outcome(title, numbers={"followed": followed, "repaired": time.monotonic() - start})

    async def _be_away(self) -> None:
        await asyncio.to_thread(self.run.server.stop)
        await asyncio.to_thread(self.run.server.compact)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.kubelet.tick()
            await asyncio.sleep(0.5)
        await asyncio.to_thread(self.run.server.start)

    async def _version(self) -> str:
        """From which the operator's watches would go on, as of now."""
        path = Reference("Service", self.life.namespace).path()
        listing = await self.client.request("GET", path) or {}
        return str(listing["metadata"]["resourceVersion"])

    async def _has_forgotten(self, version: str) -> bool:
        """Whether a watch from then on is refused, as that of the operator is."""
        query = [("watch", "true"), ("resourceVersion", str(int(version) - 5)), ("timeoutSeconds", "1")]
        try:
            event = await self.client.request("GET", Reference("Service", self.life.namespace).path(), query=query)
        except (OperatorError, ValueError) as error:
            return f"HTTP {GONE}" in str(error)
        return bool((event or {}).get("object", {}).get("code") == GONE)

    async def _deployments(self) -> dict[str, str]:
        items: list[dict[str, Any]] = await self.client.select(Reference("Deployment", self.life.namespace), "")
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}

    async def _is_observed(self) -> bool:
        resource = await self.client.get(self.life.reference) or {"metadata": {}}
        return bool(resource.get("status", {}).get("observedGeneration") == resource["metadata"].get("generation"))

    async def _is_there(self, target: Reference) -> bool:
        return await self.client.get(target) is not None


async def restarts(run: Run) -> list[Row]:
    """One operator that outlives its API server again and again."""
    tally = Tally()
    lengths = (*AWAY_SECONDS, *((SOAK_SECONDS,) if run.soak else ()))
    async with connect(str(run.server.kubeconfig)) as connection:
        runner = OperatorRunner(
            run.server.user_kubeconfig, replace(SETTINGS, identity=AREA), run.folder / "operator.log"
        )
        runner.ensure()
        kubelet, client = Kubelet(runner), ApiClient.over(connection)
        try:
            for plan in run.plans(AREA, len(lengths)):
                if not run.is_over:
                    seconds = lengths[plan.number % len(lengths)]
                    tally.add(await _outcome(run, client, kubelet, plan, seconds))
        finally:
            await asyncio.to_thread(runner.stop)
    followed, repaired = tally.values("followed"), tally.values("repaired")
    return [
        tally.row(
            run,
            area=AREA,
            promise=f"The process of the API server is stopped for {min(lengths):.0f} to {max(lengths):.0f} s, and "
            "etcd is compacted meanwhile, so that every watch is refused with 410 (checked) once it is back: what "
            "serves is left alone, a changed spec is followed, and then a deleted Service is made again",
            bound=f"{_BOUND_SECONDS:.0f} s each",
            measured=f"followed after {median(followed):.1f} s (median), {max(followed, default=0.0):.1f} s at most; "
            f"made again after {max(repaired, default=0.0):.1f} s at most; {kubelet.ends} ends of the operator",
            misses=late([*followed, *repaired], _BOUND_SECONDS),
        )
    ]


async def _outcome(run: Run, client: ApiClient, kubelet: Kubelet, plan: Plan, seconds: float) -> Outcome:
    title = f"{plan.id} (away for {seconds:.0f} s)"
    life = Life(client, f"{AREA}-{plan.number}", kubelet.tick)
    try:
        return await Outage(run, client, life, kubelet, seconds).outcome(title)
    except (StageError, OperatorError) as error:
        return Outcome(title, f"{error}; the operator's log ends with: {kubelet.runner.tail()}")
