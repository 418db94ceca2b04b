"""Areas `storms` and `outages`: errors, delays, lost answers, broken watches, and an API server that is away."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from diffusion_operator.kube_client import connect
from tests.support.chaos.api import ApiClient
from tests.support.chaos.areas import Run, Tally, late, median, until
from tests.support.chaos.crashes import Stage, run_all, stage_of
from tests.support.chaos.faults import NO_FAULTS, Faults, WatchFault

if TYPE_CHECKING:
    from tests.support.chaos.plans import Outcome, Plan, Row
    from tests.support.chaos.proxy import FaultProxy

STORMS, OUTAGES = "storms", "outages"
_SHARE, _EVENT_SHARE = 0.04, 0.3
# A pass makes about fifteen requests: of those with more failures hardly one would get to its end.
KINDS: dict[str, Faults] = {
    "429": Faults(errors=(429,), error_share=_SHARE),
    "500": Faults(errors=(500,), error_share=_SHARE),
    "503": Faults(errors=(503,), error_share=_SHARE),
    "409": Faults(errors=(409,), error_share=_SHARE),
    "all four": Faults(errors=(429, 500, 503, 409), error_share=_SHARE),
    "lost answers": Faults(lost_share=0.5),
    "delays": Faults(delay=2.0),
    "lost events": Faults(watch=WatchFault.DROP, watch_share=_EVENT_SHARE),
    "old events": Faults(watch=WatchFault.REPLAY, watch_share=_EVENT_SHARE),
    "410": Faults(watch=WatchFault.GONE, watch_at=4),
    "dead watch": Faults(watch=WatchFault.DEAD, watch_at=4),
}
AWAY: tuple[tuple[str, float, int], ...] = (
    ("refused connections", 5.0, 6),
    ("503", 5.0, 30),
    ("refused connections", 60.0, 9),
    ("503", 60.0, 36),
    ("429", 60.0, 20),
)
"""How the API server is away, for how many seconds, and from which write on."""
_ANSWERS = {"503": Faults(errors=(503,), error_share=1.0), "429": Faults(errors=(429,), error_share=1.0)}
_STORM_PLANS, _OUTAGE_PLANS = 33, 10
_REQUESTS_PER_MINUTE = 1200.0
_BACK_SECONDS = 90.0


async def storms(run: Run) -> list[Row]:
    """Whole lives in which something goes wrong all the time."""
    async with connect(str(run.server.kubeconfig)) as connection:
        stage = stage_of(run, ApiClient.over(connection))
        _, _, _, state = await stage.live("without-faults", NO_FAULTS)

        async def outcome(plan: Plan) -> Outcome:
            kind = list(KINDS)[plan.number % len(KINDS)]
            return await stage.outcome(replace(plan, options=(("kind", kind),)), KINDS[kind], state)

        tally = await run_all(run, run.plans(STORMS, _STORM_PLANS), outcome)
    return [
        tally.row(
            run,
            area=STORMS,
            promise=f"A whole life with {_SHARE:.0%} of the requests answered 429, 500, 503 or 409, half of the "
            "answers to writes lost, 2 s of delay, a third of the watch events lost or sent again, watches that end "
            "with 410 or fall silent: the end state is that without faults, and no Job is made twice",
            bound=f"0 other ends; {_REQUESTS_PER_MINUTE:,.0f} requests a minute",
            measured=f"{len(tally.failures)} other ends; {_most(tally):,.0f} requests a minute at most, "
            f"{median(tally.values('requests_per_minute')):,.0f} at the median",
            misses=_busy(tally),
        )
    ]


async def outages(run: Run) -> list[Row]:
    """Whole lives in which the API server is away for a while."""
    async with connect(str(run.server.kubeconfig)) as connection:
        stage = stage_of(run, ApiClient.over(connection))
        _, _, _, state = await stage.live("without-faults", NO_FAULTS)
        tally = await run_all(run, run.plans(OUTAGES, _OUTAGE_PLANS), lambda plan: _away(stage, plan, state))
    back = tally.values("back")
    return [
        tally.row(
            run,
            area=OUTAGES,
            promise="No API server for 5 s and for 60 s (connections refused, 503, 429), while building and while "
            "rolling out: what serves is left alone, and the end state is that without an outage",
            bound=f"0 other ends; writes again within {_BACK_SECONDS:.0f} s",
            measured=f"{len(tally.failures)} other ends; the next write came {median(back):.1f} s after the API server "
            f"(median), {max(back, default=0):.1f} s at most; {max(tally.values('storm'), default=0):,.0f} requests a "
            "minute at most while it was away",
            misses=late(back, _BACK_SECONDS),
        )
    ]


async def _away(stage: Stage, plan: Plan, expected: dict[str, object]) -> Outcome:
    kind, seconds, write = AWAY[plan.number % len(AWAY)]
    numbers: dict[str, float] = {}

    async def weather(proxy: FaultProxy) -> None:
        await until(lambda: proxy.writes >= write + plan.number)
        start = time.monotonic()
        if kind in _ANSWERS:
            proxy.faults = _ANSWERS[kind]
        else:
            await proxy.close()
        await asyncio.sleep(seconds)
        numbers["storm"] = proxy.requests_since(start) * 60 / seconds
        proxy.faults = NO_FAULTS
        if kind not in _ANSWERS:
            await proxy.open()
        end = time.monotonic()
        await until(lambda: any(exchange.is_write and exchange.at > end for exchange in proxy.exchanges[-50:]))
        numbers["back"] = time.monotonic() - end

    named = replace(plan, options=(("away", f"{kind} for {seconds:.0f} s from write {write + plan.number}"),))
    outcome = await stage.outcome(named, NO_FAULTS, expected, weather)
    return replace(outcome, numbers={**outcome.numbers, **numbers})


def _most(tally: Tally) -> float:
    return max(tally.values("requests_per_minute"), default=0.0)


def _busy(tally: Tally) -> list[str]:
    return [
        f"{outcome.plan}: {outcome.numbers['requests_per_minute']:,.0f} requests a minute"
        for outcome in tally.outcomes
        if outcome.numbers.get("requests_per_minute", 0.0) > _REQUESTS_PER_MINUTE
    ]
