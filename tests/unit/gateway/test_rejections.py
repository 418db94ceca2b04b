"""A full gateway says so at once: what comes is answered before anything that runs has ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from diffusion_gateway.settings import PipelineAddress, QueueLimits, RequestLimits, Settings
from tests.support.gateway.fake_triton import FakeTriton
from tests.support.gateway.http_client import Answer, Connection, connect
from tests.support.gateway.running import RunningGateway, run_gateway, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CONCURRENT, WAITING, CROWD = 2, 3, 300
LARGE = 8 << 20
# Of everything; what is proved is an order of events.
SECONDS = 120.0
PROMPT = "a red star"


class _ClosedTriton(FakeTriton):
    """Begins what it is sent and finishes nothing until it is opened."""

    def __init__(self, pipeline: PipelineAddress) -> None:
        super().__init__(pipeline)
        self.gate.clear()
        self.loop = asyncio.get_running_loop()

    def open(self) -> None:
        """From any thread."""
        self.loop.call_soon_threadsafe(self.gate.set)


@contextmanager
def _gateway() -> Iterator[tuple[RunningGateway, list[_ClosedTriton]]]:
    servers: list[_ClosedTriton] = []

    def make(pipeline: PipelineAddress) -> FakeTriton:
        servers.append(_ClosedTriton(pipeline))
        return servers[-1]

    limits = RequestLimits(body_seconds=SECONDS, request_seconds=SECONDS)
    settings = Settings(
        (PipelineAddress("shapes", "127.0.0.1:1"),), queue=QueueLimits(CONCURRENT, WAITING), limits=limits
    )
    with run_gateway(settings, make) as gateway:
        yield gateway, servers


async def _fill(gateway: RunningGateway, stack: AsyncExitStack) -> list[asyncio.Task[Answer]]:
    """As many requests as run and wait."""
    connections = [await stack.enter_async_context(connect(gateway.url)) for _ in range(CONCURRENT + WAITING)]
    tasks = [asyncio.create_task(connection.generate(prompt=PROMPT)) for connection in connections]
    await asyncio.to_thread(wait_until, lambda: gateway.value("waiting_requests", model="shapes") == WAITING)
    return tasks


async def _begin(connection: Connection, number: int) -> Answer:
    """Small requests, and large ones whose bodies never come: both are too many."""
    if number % 2:
        return await connection.generate(prompt=PROMPT)
    connection.send(b"", LARGE)
    return await connection.receive()


def test_a_crowd_is_rejected_before_anything_ends_and_without_reading_what_it_sends() -> None:
    async def scene(gateway: RunningGateway, servers: list[_ClosedTriton]) -> None:
        async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
            admitted = await _fill(gateway, stack)
            crowd = [await stack.enter_async_context(connect(gateway.url)) for _ in range(CROWD)]
            answers = await asyncio.gather(*(_begin(one, number) for number, one in enumerate(crowd)))
            assert Counter(answer.status for answer in answers) == {429: CROWD}
            assert {answer.error_code for answer in answers} == {"rate_limit_exceeded"}
            assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
            assert not any(task.done() for task in admitted)
            assert len(servers[0].requests) == CONCURRENT
            servers[0].open()
            assert [(await task).status for task in admitted] == [200] * (CONCURRENT + WAITING)

    with _gateway() as (gateway, servers):
        asyncio.run(scene(gateway, servers))


def test_clients_that_send_slowly_keep_nobody_from_being_rejected() -> None:
    async def scene(gateway: RunningGateway, servers: list[_ClosedTriton]) -> None:
        async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
            slow = [await stack.enter_async_context(connect(gateway.url)) for _ in range(CROWD)]
            for connection in slow:
                connection.send(b'{"prompt"', 100)
            admitted = await _fill(gateway, stack)
            async with connect(gateway.url) as connection:
                assert (await connection.generate(prompt=PROMPT)).status == 429
            assert not any(task.done() for task in admitted)
            servers[0].open()
            assert [(await task).status for task in admitted] == [200] * (CONCURRENT + WAITING)

    with _gateway() as (gateway, servers):
        asyncio.run(scene(gateway, servers))
