"""Never two passes over one key at a time, no wish lost, failures back off."""

import asyncio
from collections import Counter
from unittest.mock import AsyncMock

import pytest

from diffusion_operator.errors import UnavailableError
from diffusion_operator.handlers import queue
from diffusion_operator.handlers.queue import BACKGROUND_SHARE, Lanes, WorkQueue
from diffusion_operator.kube_client import ConflictError
from diffusion_operator.reconcile import PipelineKey

SOON = 5.0


def key(name: str) -> PipelineKey:
    return PipelineKey("studio", name)


def test_wishes_during_a_pass_lead_to_exactly_one_more() -> None:
    async def scenario() -> list[PipelineKey]:
        keys: list[PipelineKey] = []
        running: set[PipelineKey] = set()
        entered, release, again = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> None:
            assert key not in running
            running.add(key)
            keys.append(key)
            entered.set()
            await release.wait()
            running.discard(key)
            if len(keys) == 2:
                again.set()

        items = WorkQueue(work)
        items.start()
        items.add(key("a"))
        await asyncio.wait_for(entered.wait(), SOON)
        for _ in range(5):
            items.add(key("a"))
        release.set()
        await asyncio.wait_for(again.wait(), SOON)
        await items.stop(SOON)
        return keys

    assert asyncio.run(scenario()) == [key("a"), key("a")]


def test_one_stuck_key_does_not_stop_the_others() -> None:
    async def scenario() -> None:
        completion = asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> None:
            if key.name == "stuck":
                await asyncio.Event().wait()
            completion.set()

        items = WorkQueue(work, workers=2)
        items.start()
        items.add(key("stuck"))
        items.add(key("free"))
        await asyncio.wait_for(completion.wait(), SOON)
        assert items.is_alive()
        await items.stop(0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [UnavailableError("no answer"), RuntimeError("a bug")])
def test_a_failed_pass_is_tried_again_and_success_forgets_the_failures(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(queue, "MIN_BACKOFF_SECONDS", 0.001)

    async def scenario() -> int:
        passes, completion = Counter[PipelineKey](), asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> None:
            passes[key] += 1
            if passes[key] < 4:
                raise error
            completion.set()

        items = WorkQueue(work)
        items.start()
        items.add(key("a"))
        await asyncio.wait_for(completion.wait(), SOON)
        await items.stop(SOON)
        return passes[key("a")]

    assert asyncio.run(scenario()) == 4


@pytest.mark.parametrize(
    ("error", "longest"),
    [(UnavailableError("no answer"), 0.02), (ConflictError("changed"), 0.02), (RuntimeError("a bug"), 60.0)],
)
def test_pauses_stay_short_while_only_the_api_server_is_in_trouble(
    monkeypatch: pytest.MonkeyPatch, error: Exception, longest: float
) -> None:
    monkeypatch.setattr(queue, "MIN_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(queue, "MAX_OUTAGE_BACKOFF_SECONDS", 0.02)

    async def scenario() -> list[float]:
        pauses: list[float] = []
        enough = asyncio.Event()

        class Recording(WorkQueue):
            def add_after(self, key: PipelineKey, seconds: float, *, urgent: bool = True) -> None:
                pauses.append(seconds)
                if len(pauses) == 6:
                    enough.set()
                super().add_after(key, 0.0, urgent=urgent)

        items = Recording(AsyncMock(side_effect=error))
        items.start()
        items.add(key("a"))
        await asyncio.wait_for(enough.wait(), SOON)
        await items.stop(SOON)
        return pauses

    pauses = asyncio.run(scenario())
    assert max(pauses) <= longest
    assert (max(pauses) > 0.3) is (longest > 1)


def test_stopping_lets_a_running_pass_end_and_starts_no_other() -> None:
    async def scenario() -> list[PipelineKey]:
        keys: list[PipelineKey] = []
        entered, release = asyncio.Event(), asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> None:
            entered.set()
            await release.wait()
            keys.append(key)

        items = WorkQueue(work, workers=1)
        items.start()
        items.add(key("running"))
        await asyncio.wait_for(entered.wait(), SOON)
        items.add(key("waiting"))
        stopping = asyncio.create_task(items.stop(SOON))
        release.set()
        await asyncio.wait_for(stopping, SOON)
        assert not items.is_alive()
        return keys

    assert asyncio.run(scenario()) == [key("running")]


def test_a_later_look_happens() -> None:
    async def scenario() -> int:
        passes, completion = Counter[PipelineKey](), asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> float | None:
            passes[key] += 1
            if passes[key] == 3:
                completion.set()
                return None
            return 0.001

        items = WorkQueue(work)
        items.start()
        items.add(key("a"))
        await asyncio.wait_for(completion.wait(), SOON)
        await items.stop(SOON)
        return passes[key("a")]

    assert asyncio.run(scenario()) == 3


def popped(lanes: Lanes, count: int) -> list[tuple[str, bool]]:
    return [(name.name, urgent) for name, urgent in (lanes.pop() for _ in range(count))]


def test_what_has_changed_comes_before_what_is_only_looked_at_again() -> None:
    lanes = Lanes()
    for name in ("a", "b"):
        lanes.add(key(name), urgent=False)
    lanes.add(key("c"), urgent=True)
    lanes.add(key("b"), urgent=True)
    lanes.add(key("c"), urgent=False)
    assert len(lanes) == 3
    assert popped(lanes, 3) == [("c", True), ("b", True), ("a", False)]


def test_a_stream_of_events_leaves_room_for_the_others() -> None:
    lanes = Lanes()
    lanes.add(key("resync"), urgent=False)
    for number in range(10):
        lanes.add(key(str(number)), urgent=True)
    assert popped(lanes, BACKGROUND_SHARE)[-1] == ("resync", False)


def test_what_is_not_urgent_waits_until_the_cache_can_be_read_and_events_do_not() -> None:
    async def scenario() -> list[str]:
        names: list[str] = []
        finished = asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> None:
            names.append(key.name)
            if len(names) == 2:
                items.resume_background()
            if len(names) == 4:
                finished.set()

        items = WorkQueue(work, workers=1)
        items.postpone_background()
        for name in ("first", "second", "deleted", "changed"):
            items.add(key(name), urgent=False)
        items.forget(key("deleted"))
        items.add(key("changed"))
        items.add(key("new"))
        assert items.length() == 4
        items.start()
        await asyncio.wait_for(finished.wait(), SOON)
        await items.stop(SOON)
        return names

    assert asyncio.run(scenario()) == ["changed", "new", "first", "second"]


def test_keys_that_are_only_looked_at_again_give_way_to_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[float]:
        delays: list[float] = []
        completion = asyncio.Event()

        async def work(key: PipelineKey, **_: bool) -> float | None:
            if key.name == "99":
                completion.set()
            return 1.0 if key.name in {"0", "99"} else None

        items = WorkQueue(work, workers=1)
        monkeypatch.setattr(items, "add_after", lambda _, seconds, **__: delays.append(seconds))
        for number in range(100):
            items.add(key(str(number)))
        items.start()
        await asyncio.wait_for(completion.wait(), SOON)
        await items.stop(SOON)
        return delays

    assert asyncio.run(scenario()) == [99 * queue.SECONDS_PER_WAITING_KEY, 1.0]
