"""The images API between the listeners of a real Envoy Gateway: weights and hashes hold behind it, tokens before it.

Two servers make images of one color each, which tell who made them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from diffusion_operator.manifests.service import TrafficSplit, VariantWeight
from tests.support.cluster.kube import Kube, eventually
from tests.support.integrations.api_entrance import (
    CANARY,
    PROMPT,
    STABLE,
    Entrance,
    deploy_entrance,
    documented,
)
from tests.support.integrations.gateway import envoy_gateway
from tests.support.integrations.tokens import IdentityProvider, serve_keys
from tools.devcluster.ports import free_ports
from tools.images.build import Options, build_all
from tools.images.paths import default_paths
from tools.images.recipes import by_name
from tools.images.registry import parse_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.demo_support.cluster import Cluster
    from examples.demo_support.install import Images

REQUESTS = 600
VARIANT, USER = "fast", "x-diffusion-user"


@pytest.fixture(scope="module")
def images_with_gateway(cluster: Cluster, images: Images) -> Images:
    options = Options(registry=parse_registry(cluster.registry), report=print)
    return images | build_all([by_name("gateway")], default_paths(), options)


@pytest.fixture(scope="module")
def entrance(
    shared_namespace: Kube, images_with_gateway: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrance]:
    ports = dict(zip(("external", "internal"), free_ports(2), strict=True))
    with envoy_gateway(shared_namespace, tmp_path_factory.mktemp("gateway"), ports):
        yield deploy_entrance(shared_namespace, images_with_gateway, ports)


@pytest.fixture(scope="module")
def provider(entrance: Entrance) -> Iterator[IdentityProvider]:
    """The one of docs/gateway.md; the tests after the first one that uses it need its tokens."""
    [settings] = documented("SecurityPolicy")["spec"]["jwt"]["providers"]
    provider = IdentityProvider(settings["issuer"], settings["audiences"][0])
    with serve_keys(provider) as url:
        entrance.apply_policies(url)
        yield provider


def test_ten_percent_of_the_images_are_the_canarys(entrance: Entrance) -> None:
    entrance.split(TrafficSplit(STABLE, CANARY, 10, splits_by_pods=False))
    testers = {"x-diffusion-revision": "canary"}
    eventually(lambda: set(entrance.revisions(10, testers)) == {CANARY}, 60, "testers get the canary")
    revisions = entrance.revisions(REQUESTS)
    # Within six standard deviations of a fair draw, sqrt(600 * 0.1 * 0.9) = 7.3 each.
    assert abs(revisions[CANARY] - 60) <= 44, revisions


def test_users_of_an_experiment_stay_where_their_hash_says(entrance: Entrance) -> None:
    """A variant with a quarter of the requests has the hashes from 00 to 3f."""
    variants = (VariantWeight(VARIANT, CANARY, 25, 25),)
    entrance.split(TrafficSplit(STABLE, splits_by_pods=False, variants=variants), USER)
    tester = {"x-diffusion-revision": VARIANT}
    eventually(lambda: set(entrance.revisions(10, tester)) == {CANARY}, 60, "testers get the variant")
    for number in range(0, 256, 15):
        revision = CANARY if number < 64 else STABLE
        assert entrance.revisions(5, {USER: f"{number:02x}" + "5e" * 31}) == {revision: 5}, number
    revisions = entrance.revisions(REQUESTS)
    # Within six standard deviations of a fair draw, sqrt(600 * 0.25 * 0.75) = 10.6 each.
    assert abs(revisions[CANARY] - 150) <= 64, revisions


def test_the_pipelines_own_routes_are_not_outside(entrance: Entrance) -> None:
    [inside] = (entrance.spec.traffic_gateway or pytest.fail("no Gateway")).hostnames or []
    statuses = {
        (listener, host): httpx.get(f"http://127.0.0.1:{port}/v2", headers={"Host": host}).status_code
        for listener, port in entrance.ports.items()
        for host in (inside, entrance.host)
    }
    assert statuses.pop(("internal", inside)) == httpx.codes.OK
    assert set(statuses.values()) == {httpx.codes.NOT_FOUND}


def test_a_token_of_the_identity_provider_is_as_good_as_a_key(entrance: Entrance, provider: IdentityProvider) -> None:
    assert entrance.revisions(1, bearer=provider.token("ada")).total() == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("expired", openai.AuthenticationError),
        ("another issuer", openai.AuthenticationError),
        ("another key", openai.AuthenticationError),
        ("another audience", openai.PermissionDeniedError),
    ],
)
def test_other_tokens_get_no_answer(
    entrance: Entrance, provider: IdentityProvider, kind: str, error: type[openai.APIStatusError]
) -> None:
    tokens = {
        "expired": provider.token("ada", seconds=-3600),
        "another issuer": IdentityProvider("https://elsewhere.example", provider.audience).token("ada"),
        "another key": IdentityProvider(provider.issuer, provider.audience).token("ada"),
        "another audience": provider.token("ada", "mail"),
    }
    with entrance.client(tokens[kind]) as client, pytest.raises(error):
        client.images.generate(prompt=PROMPT)


def test_every_user_has_a_rate_of_their_own(entrance: Entrance, provider: IdentityProvider) -> None:
    [rule] = documented("BackendTrafficPolicy")["spec"]["rateLimit"]["local"]["rules"]
    allowed, user_header = rule["limit"]["requests"], rule["clientSelectors"][0]["headers"][0]["name"]
    assert entrance.revisions(allowed, bearer=provider.token("grace")).total() == allowed
    with entrance.client(provider.token("grace")) as client:
        # The name in a token counts, whatever its client says.
        for headers in ({}, {user_header: "joan"}):
            with pytest.raises(openai.RateLimitError):
                client.images.generate(prompt=PROMPT, extra_headers=headers)
    assert entrance.revisions(1, bearer=provider.token("joan")).total() == 1
