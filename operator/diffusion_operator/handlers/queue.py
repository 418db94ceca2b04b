"""A queue of pipelines: each waits at most once, and is never reconciled twice at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.kube_client import ConflictError
from diffusion_operator.reconcile import PipelineKey

log = logging.getLogger(__name__)

MIN_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 300.0
MAX_OUTAGE_BACKOFF_SECONDS = 30.0
"""When the API server does not answer: no event says that it does again."""


class WorkQueue:
    """De-duplicates requests, retries failures with growing pauses, and runs one reconcile per key.

    Args:
        work: one reconcile; returns seconds after which to run again, or None.
        workers: reconciles of different keys at the same time.
    """

    def __init__(self, work: Callable[[PipelineKey], Awaitable[float | None]], workers: int = 4) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[PipelineKey | None] = asyncio.Queue()
        self._queued: set[PipelineKey] = set()
        self._running: set[PipelineKey] = set()
        self._dirty: set[PipelineKey] = set()
        self._timers: dict[PipelineKey, asyncio.TimerHandle] = {}
        self._failures: dict[PipelineKey, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    def start(self) -> None:
        """Start the workers in the running loop."""
        names = (f"worker-{index}" for index in range(self._workers))
        self._tasks = [asyncio.create_task(self._worker(), name=name) for name in names]

    async def stop(self, grace_seconds: float) -> None:
        """Start no new pass; let running ones end, for at most the grace time."""
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if not self._tasks:
            return
        for _ in self._tasks:
            self._ready.put_nowait(None)
        _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in late:
            task.cancel()

    def add(self, key: PipelineKey) -> None:
        """Reconcile the key soon; a request while it is reconciled leads to one more reconcile."""
        self._cancel_timer(key)
        if key in self._running:
            self._dirty.add(key)
        elif key not in self._queued and not self._closing:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: PipelineKey, seconds: float) -> None:
        """Look at the key after a while, unless something else asks for it earlier."""
        if self._closing:
            return
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    def forget(self, key: PipelineKey) -> None:
        """Drop the key: its pipeline is gone."""
        self._cancel_timer(key)
        self._failures.pop(key, None)
        self._dirty.discard(key)

    def length(self) -> int:
        """Keys that wait for a pass."""
        return len(self._queued) + len(self._dirty)

    def is_alive(self) -> bool:
        """True while every worker works or waits."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _worker(self) -> None:
        while (key := await self._ready.get()) is not None:
            if self._closing:
                continue
            self._queued.discard(key)
            self._running.add(key)
            try:
                await self._process(key)
            finally:
                self._running.discard(key)
            if key in self._dirty:
                self._dirty.discard(key)
                self.add(key)

    async def _process(self, key: PipelineKey) -> None:
        try:
            requeue_seconds = await self._work(key)
        except (UnavailableError, ConflictError) as error:
            log.warning("%s: %s", key, error)
            self.add_after(key, min(self._backoff(key), MAX_OUTAGE_BACKOFF_SECONDS))
        except OperatorError as error:
            log.warning("%s: %s", key, error)
            self.add_after(key, self._backoff(key))
        except Exception:
            # A bug met by one object must not stop the others.
            log.exception("%s: internal error", key)
            self.add_after(key, self._backoff(key))
        else:
            self._failures.pop(key, None)
            if requeue_seconds is not None:
                self.add_after(key, requeue_seconds)

    def _backoff(self, key: PipelineKey) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(MIN_BACKOFF_SECONDS * 2.0**failures, MAX_BACKOFF_SECONDS))

    def _cancel_timer(self, key: PipelineKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
