"""Requests run in order, wait within limits, and are rejected at once beyond them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from diffusion_gateway.admission import Admission, Caller
from diffusion_gateway.errors import ApiError
from diffusion_gateway.settings import QueueLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

A, B, LATER = Caller("a"), Caller("b"), Caller("later", priority=2)


class Desk:
    """Requests that run until a test ends them."""

    def __init__(self, concurrent: int, waiting: int) -> None:
        self.seconds = 0.0
        self.admission = Admission(QueueLimits(concurrent, waiting), lambda: self.seconds)
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def send(self, name: str, caller: Caller = A, cost: int = 1, pipeline: str = "p") -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._work(name, caller, cost, pipeline))
        await settle()

    async def _work(self, name: str, caller: Caller, cost: int, pipeline: str) -> None:
        async with self.admission.admit(pipeline, caller, cost):
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await settle()

    def error(self, name: str) -> ApiError:
        error = self._tasks[name].exception()
        assert isinstance(error, ApiError)
        return error

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await task


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[Desk], Awaitable[None]], concurrent: int = 2, waiting: int = 2) -> None:
    async def main() -> None:
        desk = Desk(concurrent, waiting)
        try:
            await test(desk)
        finally:
            await desk.close()
        assert (desk.admission.running("p"), desk.admission.waiting("p")) == (0, 0)

    asyncio.run(main())


def test_requests_run_up_to_the_limit_and_start_in_the_order_of_their_arrival() -> None:
    async def test(desk: Desk) -> None:
        for name in "1234":
            await desk.send(name)
        assert desk.running == ["1", "2"]
        assert (desk.admission.running("p"), desk.admission.waiting("p")) == (2, 2)
        await desk.end("2")
        assert desk.running == ["1", "3"]

    run(test)


def test_one_more_than_may_wait_is_rejected_at_once() -> None:
    async def test(desk: Desk) -> None:
        for name in "12345":
            await desk.send(name)
        error = desk.error("5")
        assert (error.status, error.code, error.headers()) == (429, "rate_limit_exceeded", {"Retry-After": "1"})
        assert "2 requests wait for the model p" in error.message
        assert desk.admission.waiting("p") == 2

    run(test)


def test_what_could_not_even_wait_is_rejected_before_it_is_read() -> None:
    async def test(desk: Desk) -> None:
        for name in "123":
            await desk.send(name)
            desk.admission.check_room("p")
        await desk.send("4")
        with pytest.raises(ApiError, match="2 requests wait"):
            desk.admission.check_room("p")
        await desk.end("1")
        desk.admission.check_room("p")

    run(test)


def test_nothing_may_wait() -> None:
    async def test(desk: Desk) -> None:
        await desk.send("1", cost=2)
        await desk.send("2")
        assert desk.error("2").status == 429
        await desk.end("1")
        await desk.send("3")
        assert desk.running == ["3"]

    run(test, waiting=0)


def test_the_wait_that_is_announced_grows_with_what_waits_and_how_long_it_takes() -> None:
    async def test(desk: Desk) -> None:
        await desk.send("1")
        desk.seconds = 30.0
        await desk.end("1")
        for name in ("2", "3", "4", "5", "6"):
            await desk.send(name)
        assert desk.error("6").retry_after == 30

    run(test)


def test_a_lower_priority_waits_behind_all_others() -> None:
    async def test(desk: Desk) -> None:
        await desk.send("1", cost=2)
        await desk.send("2", LATER)
        await desk.send("3", B)
        await desk.end("1")
        assert desk.running == ["3", "2"]

    run(test)


def test_a_request_of_many_images_is_not_overtaken_for_ever() -> None:
    async def test(desk: Desk) -> None:
        await desk.send("small")
        await desk.send("large", cost=2)
        await desk.send("next")
        assert desk.running == ["small"]
        await desk.end("small")
        assert desk.running == ["large"]

    run(test)


def test_a_request_that_is_larger_than_the_limit_runs_alone() -> None:
    async def test(desk: Desk) -> None:
        await desk.send("large", cost=9)
        await desk.send("next")
        assert desk.running == ["large"]
        await desk.end("large")
        assert desk.running == ["next"]

    run(test)


def test_a_key_at_its_limit_does_not_hold_up_others_and_is_told_when_it_waits_too_much() -> None:
    async def test(desk: Desk) -> None:
        key = Caller("key", concurrent=1, waiting=1)
        for name in "123":
            await desk.send(name, key, cost=3)
        assert desk.running == ["1"]
        assert "1 requests of the key key wait" in desk.error("3").message
        await desk.send("4", B, cost=3)
        assert desk.running == ["1", "4"]

    run(test, concurrent=4)


def test_the_limit_of_a_key_counts_for_all_models_together() -> None:
    async def test(desk: Desk) -> None:
        key = Caller("key", concurrent=1)
        await desk.send("1", key)
        await desk.send("2", key, pipeline="q")
        assert desk.running == ["1"]
        await desk.end("1")
        assert desk.running == ["2"]

    run(test)


def test_cancelled_requests_make_room_whether_they_wait_or_run() -> None:
    async def test(desk: Desk) -> None:
        for name in "1234":
            await desk.send(name)
        await desk.cancel("1", "3")
        assert desk.running == ["2", "4"]
        assert desk.admission.waiting("p") == 0

    run(test)


@pytest.mark.parametrize("count", [50])
def test_any_order_of_arrivals_ends_and_cancellations_leaves_nothing_behind(count: int) -> None:
    async def test(desk: Desk) -> None:
        callers = [A, B, LATER, Caller("key", concurrent=1, waiting=2)]
        for number in range(count):
            await desk.send(str(number), callers[number % 4], cost=1 + number % 3, pipeline="pq"[number % 2])
            assert desk.admission.running("p") <= 2
            if number % 3 == 0 and desk.running:
                await desk.end(desk.running[0])
            if number % 5 == 0 and desk.running:
                await desk.cancel(desk.running[-1])

    run(test)
