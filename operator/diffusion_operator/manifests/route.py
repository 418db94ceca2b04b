"""Routes behind a Gateway (Gateway API v1): HTTPRoute and GRPCRoute of a pipeline, split by weight."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from diffusion_contract.spec.rollout import GatewayRef, Traffic
from diffusion_operator import naming
from diffusion_operator.manifests import buckets
from diffusion_operator.manifests.common import JsonObject, Owner, metadata
from diffusion_operator.manifests.service import PORTS, Share, Split

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


def routes(
    owner: Owner, traffic: Traffic, parts: Mapping[str, Part], user_header: str | None = None
) -> Iterator[JsonObject]:
    """Both routes: testers by header to the canary or variant, known users to theirs, everybody else by weight.

    Args:
        owner: the pipeline.
        traffic: of the spec.
        parts: targets by name. The weights of one sum up to 100 times its size.
        user_header: that keeps users with one variant of an experiment; None without one.
    """
    if traffic.gateway is None:
        return
    for kind in KINDS:
        rules = [_rule(kind, {}, _everybody(owner, kind, parts), _copies(owner, kind, traffic, parts))]
        canaries = list(_canaries(owner, kind, parts))
        if canaries:
            rules.insert(0, _rule(kind, _exactly(traffic.header.name, traffic.header.value), canaries, []))
        if user_header is not None:
            rules = [*_of_experiment(owner, kind, traffic.header.name, user_header, parts), *rules]
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
        for revision, weight in part.split.shares.items():
            backends.append({**_service(owner, kind, target, revision), "weight": weight * part.size})
    return backends


def _of_experiment(owner: Owner, kind: str, tester: str, user: str, parts: Mapping[str, Part]) -> Iterator[JsonObject]:
    """Testers by a variant's name, then users by their hash: every bucket is somebody's.

    Rules for users never overlap, so it does not matter which of them a proxy tries first.
    """
    splits = {target: part.split for target, part in parts.items()}
    shares = next(iter(splits.values())).variants
    left: list[range] = []
    rest = 100 - sum(item.wanted for item in shares)
    *own, stable = buckets.allotted([*(item.wanted for item in shares), rest])
    users: list[JsonObject] = []
    for number, (share, its) in enumerate(zip(shares, own, strict=True)):
        filled = len(its) if share.weight == share.wanted else buckets.BUCKETS * share.weight // 100
        now, later = its[:filled], its[filled:]
        left += [later] if later else []
        backends = list(_backends(owner, kind, parts, {name: split.variants[number] for name, split in splits.items()}))
        if now:
            yield _rule(kind, _exactly(tester, share.name), backends, [])
            users.append(_rule(kind, _hashed(user, [now]), list(map(dict, backends)), []))
    yield from users
    plain = [
        {**_service(owner, kind, target, part.split.stable), "weight": part.size} for target, part in parts.items()
    ]
    yield _rule(kind, _hashed(user, [*left, stable]), plain, [])


def _backends(owner: Owner, kind: str, parts: Mapping[str, Part], shares: Mapping[str, Share]) -> Iterator[JsonObject]:
    for target, part in parts.items():
        yield {**_service(owner, kind, target, shares[target].revision or part.split.stable), "weight": part.size}


def _exactly(name: str, value: str) -> JsonObject:
    return {"headers": [{"type": "Exact", "name": name, "value": value}]}


def _hashed(name: str, ranges: Iterable[range]) -> JsonObject:
    return {"headers": [{"type": "RegularExpression", "name": name, "value": buckets.pattern(ranges)}]}


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
