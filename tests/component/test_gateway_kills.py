"""A gateway or a Triton that dies under load takes only the requests with it that it was working on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.support.gateway.http_client import Answer, Connection, connect
from tests.support.gateway.running import GatewayProcess, start_gateway, wait_until
from tests.support.triton.client import counts
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.builder.repository import Built
    from tests.support.triton.tritonserver import Server

CLIENTS, MORE_CLIENTS = 12, 8
CONCURRENT = CLIENTS + MORE_CLIENTS
PROMPT = "a red circle on a blue background"
SECONDS = 300.0


@dataclass
class Load:
    """Clients that send one request after the other until it is enough, each to its own gateway.

    Attributes:
        answered: requests that got their image.
        in_flight: numbers of the requests that are being answered.
        failed: numbers of those that got no image at first, with what they got instead; None is a lost connection.
        enough: ends the load.
        progress: tells that another request was answered.
        started: requests that were begun.
    """

    answered: int = 0
    in_flight: set[int] = field(default_factory=set)
    failed: dict[int, Answer | None] = field(default_factory=dict)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)
    started: int = 0

    async def work(self, gateways: list[str], first: int) -> None:
        """Requests of one client; it goes to the next gateway when it has lost one, or finds it gone."""
        place = first
        while not self.enough.is_set():
            self.started += 1
            number = self.started
            while not await self._is_answered(gateways[place % len(gateways)], number):
                place += 1

    async def _is_answered(self, url: str, number: int) -> bool:
        """Whether the request got its image; a gateway that is gone has not got the request."""
        self.in_flight.add(number)
        try:
            async with connect(url) as connection:
                answer = await self._exchange(connection, number)
        except OSError:
            return False
        finally:
            self.in_flight.discard(number)
        if answer is not None and answer.status == 200:
            await self._count()
            return True
        assert number not in self.failed, "it failed twice"
        self.failed[number] = answer
        return False

    async def _exchange(self, connection: Connection, number: int) -> Answer | None:
        try:
            return await connection.generate(prompt=PROMPT, num_inference_steps=4, seed=number)
        except OSError:
            return None

    async def wait_for(self, answered: int) -> None:
        """Wait until so many more requests are answered."""
        until = self.answered + answered
        async with self.progress:
            await self.progress.wait_for(lambda: self.answered >= until)

    async def _count(self) -> None:
        async with self.progress:
            self.answered += 1
            self.progress.notify_all()


Stall = Callable[[Load, asyncio.TaskGroup], Awaitable[None]]


async def _kill_under_load(gateways: list[str], pid: int, stall: Stall | None = None) -> tuple[Load, set[int]]:
    """Load the gateways, kill a process in the middle; the load, and the requests that were in flight then.

    Args:
        gateways: that the clients use.
        pid: of the process.
        stall: makes sure that the process has something to lose.
    """
    load = Load()
    async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for number in range(CLIENTS):
            group.create_task(load.work(gateways, number))
        await load.wait_for(2 * CLIENTS)
        if stall is not None:
            await stall(load, group)
        _kill(pid)
        in_flight = set(load.in_flight)
        await load.wait_for(4 * CLIENTS)
        load.enough.set()
    return load, in_flight


def _kill(pid: int) -> None:
    """Kill a child of this process; no request begins before it is dead."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _options(address: str) -> list[str]:
    return ["--pipeline", f"shapes={address}", "--auth", "none", "--concurrent", str(CONCURRENT)]


def _folder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_a_killed_gateway_loses_its_own_requests_and_the_other_one_none(ddim: Server, tmp_path: Path) -> None:
    with (
        start_gateway(_folder(tmp_path, "a"), *_options(ddim.grpc)) as first,
        start_gateway(_folder(tmp_path, "b"), *_options(ddim.grpc)) as second,
    ):
        load, in_flight = asyncio.run(_kill_under_load([first.url, second.url], first.pid))
        assert load.failed, "nothing was in flight there"
        assert load.failed.keys() <= in_flight
        # Every client of the dead one lost one request, which the other one has answered.
        assert len(load.failed) <= CLIENTS // 2
        assert set(load.failed.values()) == {None}
        _is_whole(second)


def test_of_two_servers_a_killed_one_loses_its_own_requests_and_clients_may_send_them_again(
    built: Built, tmp_path: Path
) -> None:
    with serve(built.models) as first, serve(built.models) as second:
        both = f"ipv4:{first.grpc},{second.grpc}"
        with start_gateway(tmp_path, *_options(both)) as gateway:

            async def stall(load: Load, group: asyncio.TaskGroup) -> None:
                """The faster of two servers often has nothing to do: stop this one until requests have come to it."""
                os.kill(first.pid, signal.SIGSTOP)
                for number in range(MORE_CLIENTS):
                    group.create_task(load.work([gateway.url], number))
                running = partial(gateway.value, "running_images", model="shapes")
                await asyncio.to_thread(wait_until, lambda: running() == CLIENTS + MORE_CLIENTS)

            load, in_flight = asyncio.run(_kill_under_load([gateway.url], first.pid, stall))
            assert load.failed, "nothing was in flight there"
            assert load.failed.keys() <= in_flight
            errors = [answer for answer in load.failed.values() if answer is not None]
            assert len(errors) == len(load.failed)
            assert {(answer.status, answer.headers["retry-after"]) for answer in errors} == {(503, "1")}
            assert counts(second.http, "5_denoiser").samples > 0
            _is_whole(gateway)


def _is_whole(gateway: GatewayProcess) -> None:
    """Nothing of what failed runs or waits for ever."""
    assert gateway.value("running_images", model="shapes") == gateway.value("waiting_requests", model="shapes") == 0
