"""A wrong clock, of the operator's machine or of the next leader's, promotes and rolls back nothing early."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from diffusion_operator import api_clock, naming
from diffusion_operator.api_clock import ApiClock
from diffusion_operator.reconcile import PipelineKey, Reconciler
from tests.support.operator.canaries import GOOD, FakeScraper, change, stable
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import SETTINGS, serve

START = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
SHIFTS = [timedelta(minutes=10), timedelta(minutes=-10)]
PAUSE = timedelta(minutes=8)
LATER = timedelta(minutes=1)
STEPS = [{"weight": 10, "pause": "8m"}]


class Hours:
    """The API server's time, and machines whose clocks are wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = timedelta(0)
        self.shift = timedelta(0)
        hours = self

        class LocalTime(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                assert tz is UTC
                return START + hours.passed + hours.shift

        monkeypatch.setattr(api_clock, "datetime", LocalTime)

    def process(self) -> ApiClock:
        """The clock of an operator that starts now, and that the API server has answered."""
        clock = ApiClock(lambda: self.passed.total_seconds())  # noqa: PLW0108 - the attribute is replaced
        clock.note(format_datetime(START + self.passed, usegmt=True))
        return clock


def reconcile(cluster: FakeCluster, now: Callable[[], datetime], passes: int = 3) -> None:
    for _ in range(passes):
        reconciler = Reconciler(cluster, SETTINGS, scraper=FakeScraper(GOOD), now=now)
        asyncio.run(reconciler.reconcile(PipelineKey(NAMESPACE, "shapes")))
        cluster.succeed_jobs()
        for name in cluster.names("Deployment"):
            cluster.set_ready(name, cluster.objects["Deployment", name]["spec"]["replicas"])


def phases(cluster: FakeCluster) -> set[str]:
    deployments = [cluster.objects["Deployment", name] for name in cluster.names("Deployment")]
    notes = [item["metadata"]["annotations"].get(naming.ROLLOUT) for item in deployments]
    return {str(json.loads(note)["phase"]) for note in notes if note}


def canary(hours: Hours) -> tuple[FakeCluster, str]:
    """A canary in its only step, with good numbers, that waits for its pause to be over."""
    cluster = FakeCluster()
    change(cluster, 1)
    serve(cluster)
    before = stable(cluster)
    change(cluster, 2, steps=STEPS)
    reconcile(cluster, hours.process().now, passes=8)
    assert "Step" in phases(cluster)
    return cluster, before


def test_the_time_is_that_of_the_first_answer_carried_on_by_a_clock_that_nobody_sets() -> None:
    seconds = [5.0]
    clock = ApiClock(lambda: seconds[0])
    clock.note("nonsense")
    clock.note(format_datetime(START, usegmt=True))
    clock.note(format_datetime(START + timedelta(hours=1), usegmt=True))
    seconds[0] += 90.0
    assert clock.now() == START + timedelta(seconds=90)


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
def test_a_clock_that_is_set_during_a_canary_neither_promotes_nor_rejects_it(
    monkeypatch: pytest.MonkeyPatch, shift: timedelta
) -> None:
    hours = Hours(monkeypatch)
    clock = hours.process()
    cluster, before = canary(hours)
    hours.shift, hours.passed = shift, LATER
    reconcile(cluster, clock.now)
    assert (stable(cluster), "Step" in phases(cluster)) == (before, True)
    hours.passed = PAUSE + LATER
    reconcile(cluster, clock.now, passes=6)
    assert stable(cluster) != before


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
def test_the_next_leader_may_have_a_wrong_clock(monkeypatch: pytest.MonkeyPatch, shift: timedelta) -> None:
    hours = Hours(monkeypatch)
    cluster, before = canary(hours)
    hours.shift, hours.passed = shift, LATER
    reconcile(cluster, hours.process().now)
    assert (stable(cluster), "Step" in phases(cluster)) == (before, True)


def test_the_machines_own_time_would_have_promoted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours(monkeypatch)
    cluster, before = canary(hours)
    hours.shift, hours.passed = SHIFTS[0], LATER
    reconcile(cluster, ApiClock().now, passes=6)
    assert stable(cluster) != before
