"""The images API in the cluster, as the operator renders it, between two listeners of one Gateway."""

from __future__ import annotations

import base64
import io
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openai
import yaml
from PIL import Image

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_contract.spec.images_api import ProxyService
from diffusion_operator import naming
from diffusion_operator.manifests import route
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.images_api import api_deployment
from diffusion_operator.manifests.images_api_objects import api_route, api_service
from diffusion_operator.manifests.service import TrafficSplit
from diffusion_operator.settings import Settings
from tests.support.cluster.kube import eventually
from tests.support.documents import in_language
from tests.support.integrations.colored_triton import colored_triton
from tests.support.integrations.gateway import wait_for_route
from tests.support.integrations.processes import HOST
from tests.support.operator.fake_cluster import minimal_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.cluster.kube import Kube, Object

PIPELINE, TARGET, PROXY = "shapes", "cpu", "proxy"
STABLE, CANARY = "aaaaaaaa", "bbbbbbbb"
COLORS = {(255, 0, 0): STABLE, (0, 0, 255): CANARY}
PROMPT = "a star"
_SECONDS = 120


def documented(kind: str) -> Any:  # noqa: ANN401 - what the documentation shows
    """What docs/gateway.md shows: the object of that kind, or the fields of a spec that begin with `rollout`."""
    blocks = [block.text for block in in_language("yaml") if block.document.name == "gateway.md"]
    values = [value for text in blocks for value in yaml.safe_load_all(text)]
    return next(value for value in values if kind in (value.get("kind"), next(iter(value))))


def documented_spec() -> DiffusionPipelineSpec:
    """The pipeline behind an identity provider, of docs/gateway.md."""
    return DiffusionPipelineSpec.model_validate(minimal_spec() | documented("rollout"))


@dataclass(frozen=True)
class Entrance:
    """The API behind the listener `external`, and its pipeline behind `internal`.

    Attributes:
        kube: bound to its namespace.
        spec: of the pipeline.
        ports: of both listeners, on this host.
    """

    kube: Kube
    spec: DiffusionPipelineSpec
    ports: Mapping[str, int]

    @property
    def owner(self) -> Owner:
        """The pipeline; there is no such object in the cluster."""
        return Owner(PIPELINE, self.kube.namespace, "none")

    @property
    def host(self) -> str:
        """Name of the API."""
        assert self.spec.api is not None
        assert self.spec.api.gateway is not None
        return (self.spec.api.gateway.hostnames or [])[0]

    @contextmanager
    def client(self, bearer: str = "none") -> Iterator[openai.OpenAI]:
        """The official client with a token or key, which tries once."""
        url = f"http://127.0.0.1:{self.ports['external']}/v1"
        headers = {"Host": self.host}
        with openai.OpenAI(base_url=url, api_key=bearer, default_headers=headers, max_retries=0) as client:
            yield client

    def revisions(self, count: int, headers: Mapping[str, str] | None = None, bearer: str = "none") -> Counter[str]:
        """Which revisions made the images of so many requests; each has to be answered."""
        with self.client(bearer) as client:
            return Counter(_revision(client, headers or {}) for _ in range(count))

    def split(self, split: TrafficSplit, user_header: str | None = None) -> None:
        """Apply the pipeline's routes with these weights, and wait until the Gateway has taken them."""
        assert self.spec.rollout is not None
        targets = {TARGET: route.RouteTarget(split, 1)}
        for one in route.routes(self.owner, self.spec.rollout.traffic, targets, user_header):
            self.kube.apply(_ownerless(one))
        for kind in route.KINDS:
            wait_for_route(self.kube, kind, PIPELINE)

    def apply_policies(self, keys_url: str) -> None:
        """Apply the policies of docs/gateway.md, with the keys of another provider, and wait until they hold."""
        security, traffic = (documented(kind) for kind in ("SecurityPolicy", "BackendTrafficPolicy"))
        security["spec"]["jwt"]["providers"][0]["remoteJWKS"]["uri"] = keys_url
        self.kube.apply(security, traffic)
        eventually(self._is_closed, _SECONDS, lambda: self.kube.run("get", "securitypolicies", "-o", "yaml"))

    def _is_closed(self) -> bool:
        with self.client() as client:
            try:
                client.models.list()
            except openai.AuthenticationError:
                return True
        return False


def deploy_entrance(kube: Kube, images: Mapping[str, str], ports: Mapping[str, int]) -> Entrance:
    """Bring up two revisions of a pipeline, of which stable gets everything, and the API that docs/gateway.md shows.

    Args:
        kube: bound to the namespace of the Gateway.
        images: references of `triton` and `gateway`.
        ports: of the Gateway's listeners on this host.
    """
    for revision, color in zip((STABLE, CANARY), ("red", "blue"), strict=True):
        kube.apply(*colored_triton(naming.revision_name(PIPELINE, TARGET, revision), images["triton"], color))
    spec = documented_spec()
    assert spec.api is not None
    proxy = ProxyService(name=PROXY, port=ports["internal"])
    api = spec.api.model_copy(update={"upstream": proxy, "network_policy": False})
    entrance = Entrance(kube, spec.model_copy(update={"api": api}), ports)
    entrance.split(TrafficSplit(STABLE, splits_by_pods=False))
    kube.apply(*_proxy_service(ports["internal"]), *_api_objects(entrance, images))
    for name in (*(naming.revision_name(PIPELINE, TARGET, one) for one in (STABLE, CANARY)), f"{PIPELINE}-api"):
        kube.run("rollout", "status", f"deployment/{name}", f"--timeout={_SECONDS}s")
    wait_for_route(kube, "HTTPRoute", naming.api_name(PIPELINE))
    eventually(lambda: _answers(entrance), _SECONDS, lambda: kube.run("logs", f"deployment/{PIPELINE}-api"))
    return entrance


def _answers(entrance: Entrance) -> bool:
    try:
        return entrance.revisions(1).total() == 1
    except (openai.APIConnectionError, openai.NotFoundError, openai.InternalServerError):
        return False


def _api_objects(entrance: Entrance, images: Mapping[str, str]) -> Iterator[Object]:
    api, owner = entrance.spec.api, entrance.owner
    assert api is not None
    assert api.gateway is not None
    settings = Settings("none", images["triton"], gateway_image=images["gateway"])
    deployment = api_deployment(owner, entrance.spec, api, settings)
    deployment["spec"]["replicas"] = 1
    for one in (deployment, api_service(owner), api_route(owner, api.gateway)):
        yield _ownerless(one)


def _proxy_service(port: int) -> Iterator[Object]:
    """The Service of Envoy, which runs on this host instead of in a pod."""
    ports = [{"name": "http", "port": port, "protocol": "TCP"}]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": PROXY}, "spec": {"ports": ports}}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": PROXY, "labels": {"kubernetes.io/service-name": PROXY}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [HOST]}],
    }


def _ownerless(manifest: Object) -> Object:
    """Without the pipeline as owner, which does not exist here."""
    del manifest["metadata"]["ownerReferences"]
    return manifest


def _revision(client: openai.OpenAI, headers: Mapping[str, str]) -> str:
    """Whose color a new image has."""
    answer = client.images.generate(prompt=PROMPT, extra_headers=dict(headers))
    content = base64.b64decode((answer.data or [])[0].b64_json or "", validate=True)
    with Image.open(io.BytesIO(content)) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return COLORS[pixel[0], pixel[1], pixel[2]]
