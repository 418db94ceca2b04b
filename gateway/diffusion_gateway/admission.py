"""Which requests run, which wait, and which are rejected at once."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from diffusion_gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from diffusion_gateway.settings import QueueLimits

_LONGEST_RETRY = 60
# Weight of the latest request in the mean time of an image.
_SMOOTHING = 0.2


@dataclass(frozen=True)
class Caller:
    """Who sends requests.

    Args:
        name: of the key.
        priority: 1 is served before 2.
        concurrent: images at a time; None as many as the pipeline makes.
        waiting: requests that may wait; None as many as the pipeline lets wait.
    """

    name: str
    priority: int = 1
    concurrent: int | None = None
    waiting: int | None = None


@dataclass(eq=False)
class _Ticket:
    """A request that waits or runs."""

    pipeline: str
    caller: Caller
    cost: int
    number: int
    started: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """Lets requests of each pipeline run in order of priority and arrival.

    Costs are counted in images. A request that costs more than fits at all runs alone. Used from one event loop.

    Args:
        limits: of each pipeline.
        clock: seconds that only grow.
    """

    def __init__(self, limits: QueueLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._queues: dict[str, list[_Ticket]] = {}
        self._running: Counter[str] = Counter()
        self._running_of_key: Counter[str] = Counter()
        self._image_seconds: dict[str, float] = {}
        self._number = 0

    def waiting(self, pipeline: str) -> int:
        """Requests that wait for a pipeline."""
        return len(self._queues.get(pipeline, ()))

    def running(self, pipeline: str) -> int:
        """Images that a pipeline makes now."""
        return self._running[pipeline]

    def check_room(self, pipeline: str) -> None:
        """Reject what could not even wait, before anything else is done for it.

        Raises:
            ApiError: nothing more can run or wait.
        """
        is_busy = self._running[pipeline] >= self._limits.concurrent
        if is_busy and self.waiting(pipeline) >= self._limits.waiting:
            raise self._rejection(pipeline, self._full(pipeline))

    @asynccontextmanager
    async def admit(self, pipeline: str, caller: Caller, cost: int) -> AsyncIterator[None]:
        """Wait until the request may run; it ends with the block.

        Args:
            pipeline: its name.
            caller: who sends it.
            cost: images of the request.

        Raises:
            ApiError: as many wait already as may wait.
        """
        ticket = self._enqueue(pipeline, caller, cost)
        try:
            await ticket.started
            started = self._clock()
            yield
            self._learn(ticket, self._clock() - started)
        finally:
            self._leave(ticket)

    def _enqueue(self, pipeline: str, caller: Caller, cost: int) -> _Ticket:
        largest = min(self._limits.concurrent, caller.concurrent or self._limits.concurrent)
        self._number += 1
        ticket = _Ticket(pipeline, caller, min(cost, largest), self._number)
        queue = self._queues.setdefault(pipeline, [])
        queue.append(ticket)
        queue.sort(key=lambda item: (item.caller.priority, item.number))
        self._start(pipeline)
        if not ticket.started.done() and (problem := self._overflow(ticket)):
            queue.remove(ticket)
            raise self._rejection(pipeline, problem)
        return ticket

    def _rejection(self, pipeline: str, problem: str) -> ApiError:
        return ApiError(
            f"{problem}: send it again later",
            status=HTTPStatus.TOO_MANY_REQUESTS,
            code="rate_limit_exceeded",
            retry_after=self._retry_after(pipeline),
        )

    def _full(self, pipeline: str) -> str:
        return f"{self._limits.waiting} requests wait for the model {pipeline}, which is the most"

    def _overflow(self, ticket: _Ticket) -> str:
        if self.waiting(ticket.pipeline) > self._limits.waiting:
            return self._full(ticket.pipeline)
        allowed = ticket.caller.waiting
        queued = sum(item.caller.name == ticket.caller.name for queue in self._queues.values() for item in queue)
        if allowed is not None and queued > allowed:
            return f"{allowed} requests of the key {ticket.caller.name} wait, which is the most"
        return ""

    def _start(self, pipeline: str) -> None:
        """Start what fits. A key that is at its limit does not hold up the others behind it."""
        queue = self._queues.get(pipeline, [])
        for ticket in tuple(queue):
            if ticket.started.cancelled():
                continue
            if self._running[pipeline] + ticket.cost > self._limits.concurrent:
                return
            own_limit = ticket.caller.concurrent
            if own_limit is not None and self._running_of_key[ticket.caller.name] + ticket.cost > own_limit:
                continue
            queue.remove(ticket)
            self._running[pipeline] += ticket.cost
            self._running_of_key[ticket.caller.name] += ticket.cost
            ticket.started.set_result(None)

    def _leave(self, ticket: _Ticket) -> None:
        if ticket in self._queues[ticket.pipeline]:
            self._queues[ticket.pipeline].remove(ticket)
        elif ticket.started.done():
            self._running[ticket.pipeline] -= ticket.cost
            self._running_of_key[ticket.caller.name] -= ticket.cost
        for pipeline in self._queues:
            self._start(pipeline)

    def _learn(self, ticket: _Ticket, seconds: float) -> None:
        usual = self._image_seconds.get(ticket.pipeline, seconds)
        self._image_seconds[ticket.pipeline] = usual + _SMOOTHING * (seconds - usual)

    def _retry_after(self, pipeline: str) -> int:
        """Seconds until what waits now has run, as far as one can tell."""
        images = sum(ticket.cost for ticket in self._queues[pipeline]) or 1
        seconds = self._image_seconds.get(pipeline, 1.0) * images / self._limits.concurrent
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))
