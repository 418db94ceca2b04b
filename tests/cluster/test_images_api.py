"""spec.api at a real API server: it takes the objects as they are, finds nothing to write again, and forgets them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from diffusion_operator import naming
from diffusion_operator.kube_client import Reference, connect
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.cluster.definitions import serve_foreign_apis
from tests.support.cluster.kube import Kube, Object
from tests.support.operator.fleet import ControllerClient, Fleet, claim, pipeline, revision, simulate_controllers
from tests.support.paths import CRD
from tests.support.pod_templates import EVERYTHING, SIDECAR_OF_API
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = Fleet(1, 1)
PIPELINE = ONE.reference(0)
KEY = PipelineKey(PIPELINE.namespace, PIPELINE.name)
SECONDS = 120.0
KINDS = ("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "HTTPRoute")
GATEWAY = {"name": "web", "hostnames": ["*.shapes.example"]}
API = {
    "auth": {"type": "Keys", "keysSecretRef": {"name": "keys"}},
    "limits": {"perKey": {"concurrent": 2}},
    "provenance": {"embed": ["seed"], "signing": {"secretName": "signer"}},
    "autoscaling": {"maxReplicas": 4},
    "upstream": {"name": "proxy", "namespace": "gateways"},
    "nodeSelector": {"kind": "small"},
    "tolerations": [{"key": "small", "operator": "Exists"}],
    "podTemplate": {**EVERYTHING, "spec": {**EVERYTHING["spec"], "containers": [SIDECAR_OF_API]}},
}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.apply(CRD)
        yield running


@pytest.fixture(scope="module")
def kube(server: ApiServer) -> Kube:
    """The pipeline's namespace, with its store and the definitions of routes."""
    kube = Kube(server.environment, PIPELINE.namespace)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PIPELINE.namespace}})
    serve_foreign_apis(kube)
    kube.apply(claim(kube.namespace))
    return kube


async def api_objects(client: ControllerClient) -> dict[str, Object]:
    """Objects of the API by kind."""
    selector = f"{naming.MANAGED_SELECTOR},{naming.ROLE}={naming.API}"
    lists = {kind: await client.select(Reference(kind, PIPELINE.namespace), selector) for kind in KINDS}
    return {kind: item for kind, items in lists.items() for item in items}


async def settle(client: ControllerClient) -> dict[str, Object]:
    """Passes and controllers until nobody has anything to do; the API's objects then."""
    settings = Settings("b:1", "s:1", gateway_image="g:1", image_pull_secrets=("pull",))
    reconciler = Reconciler(client, settings)
    for _ in range(30):
        await reconciler.reconcile(KEY)
        if not await simulate_controllers(client, ONE):
            break
    before = await api_objects(client)
    await reconciler.reconcile(KEY)
    after = await api_objects(client)
    assert versions(after) == versions(before)
    return after


def versions(objects: dict[str, Object]) -> dict[str, str]:
    return {kind: item["metadata"]["resourceVersion"] for kind, item in objects.items()}


def test_it_comes_stays_as_it_is_and_goes(server: ApiServer, kube: Kube) -> None:
    document = pipeline(PIPELINE, revision(1))
    behind = {"strategy": "RollingUpdate", "traffic": {"gateway": GATEWAY}}

    def spec(**fields: object) -> Object:
        return document | {"spec": document["spec"] | {"rollout": behind} | fields}

    async def scene() -> None:
        async with connect(str(server.user_kubeconfig)) as connection:
            client = ControllerClient.of(connection)
            kube.apply(spec(api=API))
            objects = await settle(client)
            assert set(objects) == set(KINDS)
            assert objects["Deployment"]["spec"]["replicas"] == 2
            kube.apply(spec(api=API, suspend=True))
            objects = await settle(client)
            assert set(objects) == set(KINDS) - {"HorizontalPodAutoscaler"}
            assert objects["Deployment"]["spec"]["replicas"] == 0
            kube.apply(spec())
            assert await settle(client) == {}

    asyncio.run(scene())
    status = (kube.get("diffusionpipelines", PIPELINE.name) or {})["status"]
    assert "api" not in status
    assert {item["type"]: item["status"] for item in status["conditions"]}["Ready"] == "True"
