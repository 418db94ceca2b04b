"""Area `failover`: two operators, of which the leader is killed, stopped, paused or cut off; one of them writes."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_operator.kube_client import MERGE, connect
from diffusion_operator.leader_election import Timing, lease_reference
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally, median
from tests.support.chaos.lifecycle import Life
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.chaos.proxy import Exchange, FaultProxy, Upstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

JsonObject = dict[str, Any]
AREA = "failover"
TIMING = Timing(duration=4.0, deadline=2.5, retry=0.5)
WAYS = ("pause", "kill", "pause", "cut", "pause", "stop")
NAMESPACE = "failover"
_PLANS = 48
_TAKEOVER_SECONDS = 60.0
_AFTERWARDS_SECONDS = 2.0
_EDIT_SECONDS = 0.1
_SUCCESS = (200, 201)


class TakeoverError(Exception):
    """Nobody took over in time."""


@dataclass
class Replica:
    """One of the two processes, behind a proxy of its own."""

    identity: str
    proxy: FaultProxy
    runner: OperatorRunner


@dataclass
class Pair:
    """Both processes, the pipeline that they work on, and a person who changes it all the time."""

    client: ApiClient
    replicas: tuple[Replica, Replica]
    life: Life
    edits: int = 0

    async def holder(self) -> str:
        """Identity in the Lease."""
        lease = await self.client.get(lease_reference("default")) or {"spec": {}}
        return str(lease["spec"].get("holderIdentity") or "")

    async def edit(self) -> None:
        """Change the number of pods, for as long as the task lives."""
        while True:
            self.edits += 1
            targets = [{"name": "cpu", "replicas": self.edits % 5 + 1}]
            await self.client.patch(self.life.reference, {"spec": {"targets": targets}}, MERGE)
            await asyncio.sleep(_EDIT_SECONDS)

    def ensure(self) -> None:
        """Start whatever has ended."""
        for replica in self.replicas:
            replica.runner.ensure()

    async def fail_over(self, plan: Plan) -> Outcome:
        """One leader less, the other one working, and the first one back."""
        way, start = WAYS[plan.number % len(WAYS)], time.monotonic()
        title = f"{plan.id} ({way})"
        leader = await self._until(self.holder)
        old = next(replica for replica in self.replicas if replica.identity == leader)
        [new] = [replica for replica in self.replicas if replica is not old]
        await asyncio.sleep(random.Random(plan.id).random() / 2)  # noqa: S311 - repeatable
        failed = time.monotonic()
        await _fail(old, way)
        await self._until(lambda: self._writes_after(new, failed))
        taken = time.monotonic() - failed
        await _recover(old, way)
        await asyncio.sleep(_AFTERWARDS_SECONDS)
        self.ensure()
        foreign = foreign_writes(self.replicas, start)
        jobs = sum((replica.proxy.created_jobs for replica in self.replicas), Counter[str]())
        twice = sorted(name for name, count in jobs.items() if count > 1)
        failure = f"written without the Lease: {foreign}" if foreign else f"Jobs made twice: {twice}" if twice else ""
        return Outcome(title, failure, {"takeover": taken})

    async def _writes_after(self, replica: Replica, moment: float) -> bool:
        """Whether this one leads and has written something since."""
        replica.runner.ensure()
        exchanges = replica.proxy.exchanges
        return await self.holder() == replica.identity and any(
            exchange.is_write and exchange.at > moment for exchange in reversed(exchanges[-200:])
        )

    async def _until(self, probe: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - whatever the probe gives
        end = time.monotonic() + _TAKEOVER_SECONDS
        while not (answer := await probe()):
            if time.monotonic() > end:
                raise TakeoverError("nobody leads")
            await asyncio.sleep(0.1)
        return answer


async def _fail(replica: Replica, way: str) -> None:
    signals = {"pause": signal.SIGSTOP, "kill": signal.SIGKILL, "stop": signal.SIGTERM}
    if way == "cut":
        await replica.proxy.close()
    else:
        replica.runner.send(signals[way])


async def _recover(replica: Replica, way: str) -> None:
    if way == "pause":
        replica.runner.send(signal.SIGCONT)
    elif way == "cut":
        await replica.proxy.open()


def foreign_writes(replicas: tuple[Replica, ...], start: float) -> list[str]:
    """Writes since then of a process while the newest renewal of the Lease was another's."""
    timeline = sorted(
        (exchange.at, replica.identity, exchange)
        for replica in replicas
        for exchange in replica.proxy.exchanges
        if exchange.is_write
        or ("/leases" in exchange.path and exchange.method != "GET" and exchange.status in {200, 201})
    )
    holder, foreign = "", []
    for at, identity, exchange in timeline:
        if not exchange.is_write:
            holder = identity
        elif at >= start and holder != identity:
            foreign.append(f"{identity} {exchange.method} {exchange.path} while {holder} leads")
    return foreign


def _renews(exchange: Exchange) -> bool:
    return "/leases" in exchange.path and exchange.method != "GET" and exchange.status in _SUCCESS


async def failover(run: Run) -> list[Row]:
    """One failover after the other, in turns of every way to lose a leader."""
    async with connect(str(run.server.kubeconfig)) as connection, AsyncExitStack() as stack:
        client = ApiClient.over(connection)
        pair = await _start(run, client, stack)
        tally = Tally()
        editing = asyncio.create_task(pair.edit())
        try:
            for plan in run.plans(AREA, _PLANS):
                if run.is_over:
                    break
                tally.add(await pair.fail_over(plan))
        except TakeoverError as error:
            tally.add(Outcome(AREA, str(error)))
        finally:
            editing.cancel()
            for replica in pair.replicas:
                await asyncio.to_thread(replica.runner.stop)
    takeover = tally.values("takeover")
    return [
        tally.row(
            run,
            area=AREA,
            promise="Of two operators the leader is killed, stopped, cut off, or paused (SIGSTOP) until the other one "
            "works and woken then, while somebody changes the pipeline ten times a second: no write by a process "
            "without the Lease, and no Job made twice",
            bound="0 writes",
            measured=f"{len(tally.failures)} of {len(tally.outcomes)} failovers with such a write; the other one wrote "
            f"after {median(takeover):.1f} s (median), with a Lease of {TIMING.duration:.0f} s",
        )
    ]


async def _start(run: Run, client: ApiClient, stack: AsyncExitStack) -> Pair:
    upstream = Upstream.of(run.server.user_kubeconfig, run.folder)
    replicas = []
    for identity in ("first", "second"):
        proxy = FaultProxy(upstream, random.Random(identity))  # noqa: S311 - repeatable
        await stack.enter_async_context(proxy.serve())
        settings = replace(SETTINGS, watch_namespaces=(NAMESPACE,), identity=identity, lease_namespace="default")
        runner = OperatorRunner(proxy.kubeconfig(run.folder), settings, run.folder / f"{identity}.log", TIMING)
        replicas.append(Replica(identity, proxy, runner))
    first, second = replicas
    pair = Pair(client, (first, second), Life(client, NAMESPACE, lambda: None))
    pair.life.tick = pair.ensure
    await pair.life.create()
    await pair.life.until("serves", pair.life.is_ready)
    return pair
