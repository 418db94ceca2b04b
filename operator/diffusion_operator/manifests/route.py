"""Routes behind a Gateway (Gateway API v1): HTTPRoute and GRPCRoute of a pipeline, split by weight."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from diffusion_operator import naming
from diffusion_operator.api.spec.rollout import GatewayRef, Traffic
from diffusion_operator.manifests.common import JsonObject, Owner, metadata
from diffusion_operator.manifests.service import PORTS, Split

KINDS = ("HTTPRoute", "GRPCRoute")
API = "gateway.networking.k8s.io"
GRPC_SERVICE = "inference.GRPCInferenceService"
ALL_PERCENT = 100


@dataclass(frozen=True)
class Part:
    """One target behind the routes.

    Attributes:
        size: how many parts of the requests it gets, compared with the other targets.
    """

    split: Split
    size: int


def routes(owner: Owner, traffic: Traffic, parts: Mapping[str, Part]) -> Iterator[JsonObject]:
    """Both routes: testers by header to the canary, everybody else by weight.

    The weights of one target sum up to 100 times its size.
    """
    if traffic.gateway is None:
        return
    for kind in KINDS:
        rules = [_rule(kind, {}, _everybody(owner, kind, parts), _copies(owner, kind, traffic, parts))]
        canaries = list(_canaries(owner, kind, parts))
        if canaries:
            rules.insert(0, _rule(kind, {"headers": [_header(traffic)]}, canaries, []))
        yield {
            "apiVersion": f"{API}/v1",
            "kind": kind,
            "metadata": metadata(owner.name, owner, naming.common_labels(owner.name, naming.SERVING)),
            "spec": {**_parents(traffic.gateway), "rules": rules},
        }


def weights(route: JsonObject, owner: Owner, target: str) -> dict[str, int]:
    """What a live route says: percentages of the target's revisions."""
    rules = route.get("spec", {}).get("rules", [])
    prefix = naming.revision(owner.name, target, "")
    found: dict[str, int] = {}
    for ref in rules[-1].get("backendRefs", []) if rules else []:
        name = str(ref.get("name", ""))
        revision = name.removeprefix(prefix)
        # Another target may have a name that begins with this one's.
        if name.startswith(prefix) and "-" not in revision:
            found[revision] = found.get(revision, 0) + int(ref.get("weight", 1))
    total = sum(found.values())
    return {revision: round(100 * weight / total) for revision, weight in found.items()} if total else {}


def _parents(gateway: GatewayRef) -> JsonObject:
    parent = {"group": API, "kind": "Gateway", "name": gateway.name}
    more = {"namespace": gateway.namespace, "sectionName": gateway.section_name}
    parent |= {key: value for key, value in more.items() if value is not None}
    hosts = {"hostnames": list(gateway.hostnames)} if gateway.hostnames else {}
    return {"parentRefs": [parent], **hosts}


def _rule(kind: str, match: JsonObject, backends: list[JsonObject], filters: list[JsonObject]) -> JsonObject:
    if kind == "GRPCRoute":
        # On the same host as the HTTPRoute: only a longer path than its "/" keeps them apart.
        match = {"method": {"type": "Exact", "service": GRPC_SERVICE}, **match}
    rule: JsonObject = {"matches": [match]} if match else {}
    rule["backendRefs"] = backends
    if filters:
        rule["filters"] = filters
    if kind == "HTTPRoute":
        # A picture takes as long as it takes: a proxy's default limit would cut the slow ones.
        rule["timeouts"] = {"request": "0s"}
    return rule


def _everybody(owner: Owner, kind: str, parts: Mapping[str, Part]) -> list[JsonObject]:
    backends = []
    for target, part in parts.items():
        split, size = part.split, part.size
        shares = {split.stable: 100 - split.weight}
        if split.canary is not None and split.weight:
            shares[split.canary] = split.weight
        for revision, weight in shares.items():
            backends.append({**_service(owner, kind, target, revision), "weight": weight * size})
    return backends


def _canaries(owner: Owner, kind: str, parts: Mapping[str, Part]) -> Iterator[JsonObject]:
    for target, part in parts.items():
        if part.split.canary is not None:
            yield {**_service(owner, kind, target, part.split.canary), "weight": part.size}


def _copies(owner: Owner, kind: str, traffic: Traffic, parts: Mapping[str, Part]) -> list[JsonObject]:
    percent = traffic.mirror_percent
    if percent is None:
        return []
    share = {"percent": percent} if percent < ALL_PERCENT else {}
    return [
        {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": _service(owner, kind, target, part.split.canary), **share},
        }
        for target, part in parts.items()
        if part.split.canary is not None
    ]


def _service(owner: Owner, kind: str, target: str, revision: str) -> JsonObject:
    port = dict(PORTS)["http" if kind == "HTTPRoute" else "grpc"]
    return {"group": "", "kind": "Service", "name": naming.revision(owner.name, target, revision), "port": port}


def _header(traffic: Traffic) -> JsonObject:
    return {"type": "Exact", "name": traffic.header.name, "value": traffic.header.value}
