"""Envoy Gateway and a real Envoy take the routes that the operator renders. Two servers' answers tell who they are."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from diffusion_contract.spec.rollout import Traffic
from diffusion_operator import naming
from diffusion_operator.manifests import route
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.service import TrafficSplit, VariantWeight
from tests.support.cluster.kube import Kube, Object, eventually
from tests.support.integrations.gateway import NAME, envoy_gateway, wait_for_route
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

STABLE, CANARY = "aaaaaaaa", "bbbbbbbb"
HTTP, GRPC = 8000, 8001
REQUESTS = 600
VARIANT, USER = "fast", "x-diffusion-user"
TESTER = Traffic.model_validate({"gateway": {"name": NAME}}).header


@dataclass(frozen=True)
class Door:
    """Two servers behind one Gateway, called by their revisions.

    Attributes:
        address: host:port of the Gateway.
    """

    kube: Kube
    address: str

    def http(self, count: int, headers: Mapping[str, str] | None = None) -> Counter[str]:
        """Who answered, of so many requests; each has to be answered."""
        with httpx.Client(base_url=f"http://{self.address}", headers=headers) as client:
            return Counter(client.get("/v2").raise_for_status().json()["name"] for _ in range(count))

    def grpc(self, count: int, headers: Mapping[str, str] | None = None) -> Counter[str]:
        """The same over gRPC."""
        with tritonclient.grpc.InferenceServerClient(self.address) as client:
            return Counter(client.get_server_metadata(headers=headers).name for _ in range(count))

    def split(self, weight: int, **traffic: object) -> None:
        """Apply what the operator renders for this weight, and wait until the Gateway has taken it."""
        self._apply(TrafficSplit(STABLE, CANARY, weight, splits_by_pods=False), None, **traffic)

    def compare(self, weight: int) -> None:
        """The same for an experiment with one variant."""
        shares = (VariantWeight(VARIANT, CANARY if weight else None, weight, 25),)
        self._apply(TrafficSplit(STABLE, splits_by_pods=False, variants=shares), USER)

    def _apply(self, split: TrafficSplit, user_header: str | None, **traffic: object) -> None:
        traffic_spec = Traffic.model_validate({"gateway": {"name": NAME}, **traffic})
        targets = {"cpu": route.RouteTarget(split, 1)}
        for one in route.routes(Owner("shapes", self.kube.namespace, "none"), traffic_spec, targets, user_header):
            del one["metadata"]["ownerReferences"]  # no pipeline stands behind it here
            self.kube.apply(one)
        for kind in route.KINDS:
            wait_for_route(self.kube, kind, "shapes")


def server(revision: str, image: str) -> list[Object]:
    """A Triton without models, whose metadata carry its revision, with the Service of a revision."""
    name = naming.revision_name("shapes", "cpu", revision)
    labels = {"app": name}
    container = {
        "name": "triton",
        "image": image,
        "command": ["tritonserver", f"--id={revision}", "--model-repository=/tmp", "--log-verbose=1"],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": HTTP}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"metadata": {"labels": labels}, "spec": {"securityContext": user, "containers": [container]}}
    ports = [{"name": "http", "port": HTTP}, {"name": "grpc", "port": GRPC}]
    head = {"name": name}
    deployment = {"selector": {"matchLabels": labels}, "template": pod}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": head, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": head, "spec": {"selector": labels, "ports": ports}},
    ]


@pytest.fixture(scope="module")
def door(shared_namespace: Kube, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    kube, (port,) = shared_namespace, free_ports(1)
    kube.apply(*server(STABLE, images["triton"]), *server(CANARY, images["triton"]))
    with envoy_gateway(kube, tmp_path_factory.mktemp("gateway"), {"http": port}):
        for revision in (STABLE, CANARY):
            name = naming.revision_name("shapes", "cpu", revision)
            kube.run("rollout", "status", f"deployment/{name}", "--timeout=120s")
        door = Door(kube, f"127.0.0.1:{port}")
        door.split(10)
        for ask in (door.http, door.grpc):
            eventually(lambda ask=ask: answers(ask) == {CANARY}, 60, "testers reach the canary")  # type: ignore[misc]
        yield door


def answers(ask: Callable[[int, Mapping[str, str]], Counter[str]]) -> set[str]:
    """Who answers testers; nobody while Envoy starts."""
    with suppress(httpx.HTTPStatusError, httpx.TransportError, InferenceServerException):
        return set(ask(5, {TESTER.name: TESTER.value}))
    return set()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_ten_percent_of_the_requests_reach_the_canary(door: Door, protocol: str) -> None:
    got = getattr(door, protocol)(REQUESTS)
    # Within six standard deviations of a fair draw, sqrt(600 * 0.1 * 0.9) = 7.3 each.
    assert abs(got[CANARY] - 60) <= 44, got
    assert got.total() == REQUESTS


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_testers_reach_the_canary_by_a_header(door: Door, protocol: str) -> None:
    assert getattr(door, protocol)(50, {TESTER.name: TESTER.value}) == {CANARY: 50}


def test_another_weight_loses_no_request(door: Door) -> None:
    for weight, end in ((50, {STABLE, CANARY}), (0, {STABLE})):
        door.split(weight)
        # Each of these requests has to be answered, before and after Envoy knows the new weight.
        for ask in (door.http, door.grpc):
            eventually(lambda ask=ask, end=end: set(ask(60)) == end, 60, f"{weight} percent")  # type: ignore[misc]


def test_the_canary_gets_copies_while_stable_answers(door: Door) -> None:
    door.split(0, mirrorPercent=100)

    def copies() -> int:
        name = naming.revision_name("shapes", "cpu", CANARY)
        return door.kube.run("logs", f"deployment/{name}", "--tail=-1").count('HTTP request: 0 /v2"')

    before = copies()
    eventually(lambda: door.http(5) == {STABLE: 5} and copies() > before, 60, "copies arrive")
    assert door.http(50) == {STABLE: 50}
    eventually(lambda: copies() >= before + 51, 30, lambda: f"a copy of each request, not {copies() - before}")


def test_users_of_an_experiment_stay_where_their_hash_says(door: Door) -> None:
    """A variant with a quarter of the requests has the hashes from 00 to 3f, over HTTP and gRPC."""
    door.compare(25)
    for ask in (door.http, door.grpc):
        tester = {TESTER.name: VARIANT}
        eventually(lambda ask=ask, tester=tester: set(ask(60, tester)) == {CANARY}, 60, "the variant by name")  # type: ignore[misc]
        # Who asks for a variant gets it, whoever he is.
        assert ask(20, tester | {USER: "ff" * 32}) == {CANARY: 20}
        for number in range(0, 256, 5):
            who = CANARY if number < 64 else STABLE
            assert ask(3, {USER: f"{number:02x}" + "5e" * 31}) == {who: 3}, number
        for headers in ({}, {USER: "user-42"}):
            got = ask(REQUESTS, headers)
            # Within six standard deviations of a fair draw, sqrt(600 * 0.25 * 0.75) = 10.6 each.
            assert abs(got[CANARY] - 150) <= 64, got


def test_users_of_a_variant_that_is_not_ready_are_answered_by_stable(door: Door) -> None:
    door.compare(0)
    for ask in (door.http, door.grpc):
        for headers in ({USER: "00" * 32}, {USER: "ff" * 32}, {}):
            eventually(lambda ask=ask, headers=headers: set(ask(60, headers)) == {STABLE}, 60, "stable answers all")  # type: ignore[misc]
