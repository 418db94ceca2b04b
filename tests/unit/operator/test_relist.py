"""Changes of which no watch event came are noticed, each once."""

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import pytest

from diffusion_operator import relist
from diffusion_operator.api import KIND
from diffusion_operator.errors import UnavailableError
from diffusion_operator.kube_client import Reference
from diffusion_operator.object_cache import SETTLED_KINDS, ObjectCache
from diffusion_operator.relist import Relister
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import serve

Event = tuple[str, str, str]


@pytest.fixture(autouse=True)
def _events_arrive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relist, "ARRIVAL_SECONDS", 0.0)


class Watch:
    """A cache that events fill, and the events that only a comparison has brought."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.cache = ObjectCache()
        self.events: list[Event] = []
        self.relister = Relister(self.cluster, self.cache, self.report)
        self.cluster.apply_pipeline()
        serve(self.cluster)
        for (kind, name), body in self.cluster.objects.items():
            if kind in SETTLED_KINDS:
                self.cache.put(Reference(kind, NAMESPACE, name), body)

    async def report(self, event: str, body: dict[str, Any]) -> None:
        ref = Reference(body["kind"], NAMESPACE, body["metadata"]["name"])
        self.events.append((event, ref.kind, ref.name))
        if event == "DELETED":
            self.cache.remove(ref, body["metadata"]["uid"])
        else:
            self.cache.put(ref, body)

    def compare(self) -> int:
        return asyncio.run(self.relister.compare())

    def change(self, kind: str, name: str) -> None:
        asyncio.run(self.cluster.patch(Reference(kind, NAMESPACE, name), {"metadata": {"labels": {"team": "a"}}}))


def test_nothing_is_reported_while_every_event_arrives() -> None:
    watch = Watch()
    assert not watch.cache.is_complete
    assert watch.compare() == 0
    assert watch.events == []
    assert watch.cache.is_complete


@pytest.mark.parametrize("kind", [KIND, "Service", "Deployment", "Job", "PodDisruptionBudget"])
def test_a_lost_change_is_reported_once(kind: str) -> None:
    watch = Watch()
    name = watch.cluster.names(kind)[0]
    watch.change(kind, name)
    assert watch.compare() == 1
    assert watch.events == [("MODIFIED", kind, name)]
    assert watch.compare() == 0


def test_a_new_object_and_a_deleted_one_are_reported_too() -> None:
    watch = Watch()
    watch.cluster.apply_pipeline("second")
    deployment = watch.cluster.names("Deployment")[0]
    del watch.cluster.objects["Deployment", deployment]
    watch.compare()
    assert sorted(watch.events) == [("DELETED", "Deployment", deployment), ("MODIFIED", KIND, "second")]


def test_an_object_that_was_made_again_is_reported_as_deleted_and_as_new() -> None:
    watch = Watch()
    watch.cluster.objects[KIND, "shapes"]["metadata"]["uid"] = "another"
    watch.change(KIND, "shapes")
    watch.compare()
    assert watch.events == [("DELETED", KIND, "shapes"), ("MODIFIED", KIND, "shapes")]


def test_a_comparison_that_fails_does_not_end_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    answers = iter([ValueError("a bug"), None])
    compare, finished = watch.relister.compare, asyncio.Event()

    async def fail_first() -> int:
        error = next(answers)
        if error is not None:
            raise error
        finished.set()
        return await compare()

    monkeypatch.setattr(watch.relister, "compare", fail_first)
    monkeypatch.setattr(relist, "INTERVAL_SECONDS", (0.0, 0.0))

    async def scenario() -> None:
        task = asyncio.create_task(watch.relister.run())
        await asyncio.wait_for(finished.wait(), 5.0)
        task.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("is_answered", [True, False])
def test_the_first_comparison_ends_the_wait_for_it_even_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, *, is_answered: bool
) -> None:
    watch = Watch()
    if not is_answered:
        monkeypatch.setattr(watch.relister, "compare", AsyncMock(side_effect=UnavailableError("no answer")))

    async def scenario() -> None:
        task = asyncio.create_task(watch.relister.run())
        await asyncio.wait_for(watch.relister.wait_for_first_comparison(60.0), 5.0)
        assert watch.cache.is_complete == is_answered
        task.cancel()

    asyncio.run(scenario())


def test_nobody_waits_longer_than_agreed_for_the_first_comparison() -> None:
    asyncio.run(asyncio.wait_for(Watch().relister.wait_for_first_comparison(0.0), 5.0))


def test_events_that_arrive_during_a_comparison_are_not_waited_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(relist, "ARRIVAL_SECONDS", 600.0)
    monkeypatch.setattr(relist, "ARRIVAL_LOOKS", 60_000)
    watch.change("Service", watch.cluster.names("Service")[0])

    async def scenario() -> int:
        comparison = asyncio.create_task(watch.relister.compare())
        await asyncio.sleep(0)
        for (kind, name), body in watch.cluster.objects.items():
            if kind in SETTLED_KINDS:
                watch.cache.put(Reference(kind, NAMESPACE, name), body)
        return await asyncio.wait_for(comparison, 5.0)

    assert asyncio.run(scenario()) == 0
