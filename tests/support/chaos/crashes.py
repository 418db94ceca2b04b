"""Area `crashes`: SIGKILL of the operator before or after a write, anywhere in a pipeline's life."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_operator.errors import OperatorError
from diffusion_operator.kube_client import connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally, median
from tests.support.chaos.faults import NO_FAULTS, Faults, Moment
from tests.support.chaos.lifecycle import Life, StageError
from tests.support.chaos.operators import SETTINGS, OperatorRunner
from tests.support.chaos.plans import Outcome, Plan, Row
from tests.support.chaos.proxy import FaultProxy, Upstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from pathlib import Path

    Weather = Callable[[FaultProxy], Coroutine[Any, Any, None]]

AREA = "crashes"
PARALLEL = 6
_PLANS = 36
KILL_EVERY = 9


@dataclass(frozen=True)
class Stage:
    """What lives run on: the API server, a folder, and how it ends without faults."""

    client: ApiClient
    upstream: Upstream
    folder: Path
    seed: int

    async def live(
        self, name: str, faults: Faults, weather: Weather | None = None
    ) -> tuple[Life, FaultProxy, OperatorRunner, dict[str, Any]]:
        """One whole life with these faults, in a namespace of this name; returns its end state, too.

        Raises:
            StageError: it does not get to its end.
        """
        proxy = FaultProxy(self.upstream, random.Random(f"{self.seed}/{name}"), faults)  # noqa: S311 - repeatable
        async with proxy.serve():
            settings = replace(SETTINGS, watch_namespaces=(name,), identity=name)
            runner = OperatorRunner(proxy.kubeconfig(self.folder), settings, self.folder / f"{name}.log")
            proxy.kill = runner.kill
            life = Life(self.client, name, runner.ensure)
            runner.ensure()
            changing: asyncio.Task[None] | None = asyncio.create_task(weather(proxy)) if weather else None
            try:
                state = await life.live()
                await life.delete()
            finally:
                runner.kill()
                if changing is not None:
                    changing.cancel()
            return life, proxy, runner, state

    async def outcome(
        self, plan: Plan, faults: Faults, expected: dict[str, Any], weather: Weather | None = None
    ) -> Outcome:
        """Whether a life with these faults ends as one without."""
        options = " ".join(value for _, value in plan.options)
        title, name = f"{plan.id} ({options or faults})", f"{plan.area}-{plan.number}"
        try:
            life, proxy, runner, state = await self.live(name, faults, weather)
        except (StageError, OperatorError) as error:
            log = OperatorRunner(self.folder, SETTINGS, self.folder / f"{name}.log").tail()
            return Outcome(title, f"{error}; the operator's log ends with: {log}")
        twice = {job: count for job, count in proxy.created_jobs.items() if count > 1}
        if twice:
            return Outcome(title, f"Jobs were made twice: {twice}")
        if state != expected:
            return Outcome(title, f"ends as {state}, not as {expected}")
        if life.unserved:
            return Outcome(title, life.unserved[0])
        return Outcome(title, numbers=_numbers(proxy, runner))


def _numbers(proxy: FaultProxy, runner: OperatorRunner) -> dict[str, float]:
    writes = [exchange.at for exchange in proxy.exchanges if exchange.is_write]
    pauses = [next((at for at in writes if at > kill), kill) - kill for kill in proxy.kills]
    times = [exchange.at for exchange in proxy.exchanges]
    minutes = max(1.0, times[-1] - times[0]) / 60
    numbers = {"kills": len(proxy.kills), "starts": runner.starts, "requests_per_minute": len(times) / minutes}
    return numbers | ({"recovery": max(pauses)} if pauses else {})


async def crashes(run: Run) -> list[Row]:
    """Lives with a kill at every ninth write, each beginning one write later than the one before."""
    async with connect(str(run.server.kubeconfig)) as connection:
        stage = stage_of(run, ApiClient.over(connection))
        _, proxy, _, state = await stage.live("without-faults", NO_FAULTS)
        tally = await run_all(run, run.plans(AREA, _PLANS), lambda plan: _outcome(stage, plan, state))
    recovery = tally.values("recovery")
    return [
        tally.row(
            run,
            area=AREA,
            promise="SIGKILL of the operator at a write of build, serve, canary, promote, rollback and delete: the end "
            "state is that without a kill, no Job is made twice, and something ready is behind the Service all along",
            bound="0 other ends",
            measured=f"{tally.total('kills'):.0f} kills in {len(tally.outcomes)} lives of {proxy.writes} writes: "
            f"{len(tally.failures)} other ends; all writes again after {median(recovery):.1f} s "
            f"(median of the lives), {recovery[-1] if recovery else 0:.1f} s at most",
        )
    ]


def stage_of(run: Run, client: ApiClient) -> Stage:
    """Where the lives of a run take place."""
    return Stage(client, Upstream.of(run.server.user_kubeconfig, run.folder), run.folder, run.seed)


async def run_all(run: Run, plans: Iterable[Plan], work: Callable[[Plan], Awaitable[Outcome]]) -> Tally:
    """Run plans, some of them at the same time, for as long as there is time."""
    tally, limit = Tally(), asyncio.Semaphore(PARALLEL)

    async def one(plan: Plan) -> None:
        async with limit:
            if not run.is_over:
                tally.add(await work(plan))

    await asyncio.gather(*map(one, plans))
    return tally


async def _outcome(stage: Stage, plan: Plan, expected: dict[str, Any]) -> Outcome:
    turn, first = divmod(plan.number, KILL_EVERY)
    faults = Faults(kill_at=first + 1, kill_every=KILL_EVERY, kill=list(Moment)[turn % 2])
    return await stage.outcome(plan, faults, expected)
