"""At most one process works at a time, and one that goes is replaced."""

import asyncio

import aiohttp
import pytest

from diffusion_operator import kube_client
from diffusion_operator.errors import UnavailableError
from diffusion_operator.kube_client import ConflictError, KubeClient, Reference
from diffusion_operator.leader_election import LeaderElection, LeaseLostError, Timing, lease_reference
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster

TARGET = lease_reference(NAMESPACE)
QUICK = Timing(duration=15, deadline=0.05, retry=0.001)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempt(candidate: LeaderElection) -> bool:
    return asyncio.run(candidate.try_acquire_or_renew())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def candidate(cluster: KubeClient, name: str, clock: Clock) -> LeaderElection:
    return LeaderElection(cluster, TARGET, name, clock=clock)


def test_the_first_leads_and_the_second_waits(cluster: FakeCluster, clock: Clock) -> None:
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    assert attempt(first)
    for _ in range(10):
        clock.now += 2
        assert attempt(first)
        assert not attempt(second)


def test_a_leader_that_falls_silent_is_replaced_after_the_duration_and_not_before(
    cluster: FakeCluster, clock: Clock
) -> None:
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    attempt(first)
    assert not attempt(second)
    clock.now += 14.9
    assert not attempt(second)
    clock.now += 0.2
    assert attempt(second)
    assert not attempt(first)
    assert cluster.objects["Lease", TARGET.name]["spec"]["leaseTransitions"] == 1


def test_the_leaders_clock_does_not_matter(cluster: FakeCluster, clock: Clock) -> None:
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    attempt(first)
    cluster.objects["Lease", TARGET.name]["spec"]["renewTime"] = "1990-01-01T00:00:00.000000Z"
    assert not attempt(second)


def test_who_resigns_is_replaced_at_once(cluster: FakeCluster, clock: Clock) -> None:
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    attempt(first)
    attempt(second)
    asyncio.run(first.release())
    assert attempt(second)


def test_only_the_leader_can_resign(cluster: FakeCluster, clock: Clock) -> None:
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    attempt(first)
    asyncio.run(second.release())
    assert not attempt(second)


def test_of_two_at_the_same_moment_one_wins(clock: Clock) -> None:
    cluster = Racing()
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    attempt(first)
    asyncio.run(first.release())
    cluster.meanwhile = second
    with pytest.raises(ConflictError):
        attempt(first)
    assert cluster.objects["Lease", TARGET.name]["spec"]["holderIdentity"] == "second"


class Racing(FakeCluster):
    """Lets another candidate act between a look and the write."""

    meanwhile: LeaderElection | None = None

    async def get(self, target: Reference) -> dict[str, object] | None:
        lease = await super().get(target)
        other, self.meanwhile = self.meanwhile, None
        if other is not None:
            assert await other.try_acquire_or_renew()
        return lease


def test_a_leader_that_cannot_renew_stops_before_another_may_start() -> None:
    assert Timing().deadline < Timing().duration

    class Unreachable(FakeCluster):
        async def get(self, target: Reference) -> dict[str, object] | None:
            raise UnavailableError(f"no {target.name} now")

    with pytest.raises(LeaseLostError):
        asyncio.run(LeaderElection(Unreachable(), TARGET, "first", QUICK).renew_until_lost())


def test_a_leader_that_was_paused_knows_that_another_may_lead_before_it_asks(
    cluster: FakeCluster, clock: Clock
) -> None:
    first = candidate(cluster, "first", clock)
    assert not first.leads()
    attempt(first)
    clock.now += Timing().deadline - 0.1
    assert first.leads()
    clock.now += 0.2
    assert not first.leads()
    attempt(first)
    assert first.leads()
    asyncio.run(first.release())
    assert not first.leads()


def test_who_sees_another_leader_leads_no_more(cluster: FakeCluster, clock: Clock) -> None:
    first, second = candidate(cluster, "first", clock), candidate(cluster, "second", clock)
    attempt(first)
    cluster.objects["Lease", TARGET.name]["spec"]["holderIdentity"] = ""
    attempt(second)
    attempt(first)
    assert (first.leads(), second.leads()) == (False, True)


def test_a_fenced_client_reads_and_does_not_write() -> None:
    class Connection:
        def param_serialize(self, method: str, *_: object, **__: object) -> None:
            raise OSError(f"{method} is sent")

    leads = True
    connection = KubeClient(Connection())  # type: ignore[arg-type] # as much of it as is used
    fenced = connection.fenced(lambda: leads)
    with pytest.raises(UnavailableError, match="PATCH is sent"):
        asyncio.run(fenced.patch(TARGET, {}))
    leads = False
    with pytest.raises(UnavailableError, match="nothing is written"):
        asyncio.run(fenced.patch(TARGET, {}))
    with pytest.raises(UnavailableError, match="GET is sent"):
        asyncio.run(fenced.get(TARGET))


def test_a_request_whose_answer_is_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_client, "RETRY_PAUSES_SECONDS", (0.0, 0.0))

    class Answer:
        status = 200

        async def read(self) -> bytes:
            return b"{}"

        def getheader(self, name: str) -> None:
            assert name == "Date"

    class Connection:
        def __init__(self, losses: int) -> None:
            self.losses, self.sent = losses, 0

        async def param_serialize(self, *_: object, **__: object) -> tuple[str]:
            return ("request",)

        async def call_api(self, *_: object, **__: object) -> Answer:
            self.sent += 1
            if self.sent <= self.losses:
                raise aiohttp.ServerDisconnectedError
            return Answer()

    connection = Connection(2)
    assert asyncio.run(KubeClient(connection).patch(TARGET, {})) == {}  # type: ignore[arg-type] # as much as is used
    assert connection.sent == 3
    with pytest.raises(UnavailableError, match="does not answer"):
        asyncio.run(KubeClient(Connection(3)).patch(TARGET, {}))  # type: ignore[arg-type] # same


def test_winning_waits_until_the_other_one_is_gone(cluster: FakeCluster) -> None:
    async def scene() -> None:
        first, second = (LeaderElection(cluster, TARGET, name, QUICK) for name in ("first", "second"))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await first.release()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scene())
