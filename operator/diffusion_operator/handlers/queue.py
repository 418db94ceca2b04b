"""A queue of pipelines: each waits at most once, and is never reconciled twice at a time."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Protocol

from diffusion_operator.errors import OperatorError, UnavailableError
from diffusion_operator.kube_client import ConflictError
from diffusion_operator.reconcile import PipelineKey

log = logging.getLogger(__name__)

MIN_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 300.0
MAX_OUTAGE_BACKOFF_SECONDS = 30.0
"""When the API server does not answer: no event says that it does again."""


SECONDS_PER_WAITING_KEY = 0.05
"""A pass that only looks again comes so much later for every key that waits: a large fleet would do nothing else."""

BACKGROUND_SHARE = 4
"""Of so many passes at least one is not urgent, so that a stream of events does not stop the others."""


class Lanes:
    """Keys that wait: urgent ones, which something has happened to, before those that are only looked at again."""

    def __init__(self) -> None:
        self._urgent: dict[PipelineKey, None] = {}
        self._background: dict[PipelineKey, None] = {}
        self._urgent_in_a_row = 0

    def __contains__(self, key: PipelineKey) -> bool:
        return key in self._urgent or key in self._background

    def __len__(self) -> int:
        return len(self._urgent) + len(self._background)

    def add(self, key: PipelineKey, *, urgent: bool) -> None:
        """Let the key wait in its lane; an urgent one does not go back into the other."""
        if urgent:
            self._background.pop(key, None)
            self._urgent[key] = None
        elif key not in self._urgent:
            self._background[key] = None

    def pop(self) -> tuple[PipelineKey, bool]:
        """The next key, and whether it is urgent."""
        is_background_due = bool(self._background) and self._urgent_in_a_row >= BACKGROUND_SHARE - 1
        urgent = bool(self._urgent) and not is_background_due
        lane = self._urgent if urgent else self._background
        self._urgent_in_a_row = self._urgent_in_a_row + 1 if urgent else 0
        key = next(iter(lane))
        del lane[key]
        return key, urgent


class Work(Protocol):
    """One reconcile of a key; returns seconds after which to run again, or None."""

    def __call__(self, key: PipelineKey, *, urgent: bool) -> Awaitable[float | None]:
        """Reconcile; `urgent` when something has happened to the key."""


class WorkQueue:
    """De-duplicates requests, retries failures with growing pauses, and runs one reconcile per key.

    Args:
        work: one reconcile.
        workers: reconciles of different keys at the same time.
    """

    def __init__(self, work: Work, workers: int = 4) -> None:
        self._work = work
        self._workers = workers
        self._lanes = Lanes()
        self._waiting = asyncio.Semaphore(0)
        self._running: set[PipelineKey] = set()
        self._dirty: dict[PipelineKey, bool] = {}
        self._timers: dict[PipelineKey, asyncio.TimerHandle] = {}
        self._failures: dict[PipelineKey, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._postponed: dict[PipelineKey, None] | None = None
        self._closing = False

    def postpone_background(self) -> None:
        """Let what is not urgent wait from now on."""
        self._postponed = {}

    def resume_background(self) -> None:
        """Begin with what was postponed."""
        keys, self._postponed = self._postponed or {}, None
        for key in keys:
            self.add(key, urgent=False)

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
            self._waiting.release()
        _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in late:
            task.cancel()

    def add(self, key: PipelineKey, *, urgent: bool = True) -> None:
        """Reconcile the key soon; a request while it is reconciled leads to one more reconcile."""
        self._cancel_timer(key)
        if self._postponed is not None:
            if not urgent:
                self._postponed[key] = None
                return
            self._postponed.pop(key, None)
        if key in self._running:
            self._dirty[key] = urgent or self._dirty.get(key, False)
        elif not self._closing:
            if key not in self._lanes:
                self._waiting.release()
            self._lanes.add(key, urgent=urgent)

    def add_after(self, key: PipelineKey, seconds: float, *, urgent: bool = True) -> None:
        """Look at the key after a while, unless something else asks for it earlier."""
        if self._closing:
            return
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, partial(self.add, key, urgent=urgent))

    def forget(self, key: PipelineKey) -> None:
        """Drop the key: its pipeline is gone."""
        self._cancel_timer(key)
        self._failures.pop(key, None)
        self._dirty.pop(key, None)
        (self._postponed or {}).pop(key, None)

    def length(self) -> int:
        """Keys that wait for a pass."""
        return len(self._lanes) + len(self._dirty) + len(self._postponed or {})

    def is_alive(self) -> bool:
        """True while every worker works or waits."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _worker(self) -> None:
        while await self._waiting.acquire() and not self._closing:
            key, urgent = self._lanes.pop()
            self._running.add(key)
            try:
                await self._process(key, urgent=urgent)
            finally:
                self._running.discard(key)
            if key in self._dirty:
                self.add(key, urgent=self._dirty.pop(key))

    async def _process(self, key: PipelineKey, *, urgent: bool) -> None:
        try:
            requeue_seconds = await self._work(key, urgent=urgent)
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
                self.add_after(key, max(requeue_seconds, self.length() * SECONDS_PER_WAITING_KEY), urgent=False)

    def _backoff(self, key: PipelineKey) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(MIN_BACKOFF_SECONDS * 2.0**failures, MAX_BACKOFF_SECONDS))

    def _cancel_timer(self, key: PipelineKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
