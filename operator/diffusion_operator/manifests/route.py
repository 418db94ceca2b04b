"""Routes behind a Gateway (Gateway API v1): HTTPRoute and GRPCRoute of a pipeline, split by weight."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from diffusion_contract.spec.rollout import GatewayRef, Traffic
from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests import buckets
from diffusion_operator.manifests.common import Owner, metadata
from diffusion_operator.manifests.service import PORTS, TrafficSplit

KINDS = ("HTTPRoute", "GRPCRoute")
API = "gateway.networking.k8s.io"
GRPC_SERVICE = "inference.GRPCInferenceService"
ALL_PERCENT = 100


@dataclass(frozen=True)
class RouteTarget:
    """One target behind the routes.

    Attributes:
        size: how many parts of the requests it gets, compared with the other targets.
    """

    split: TrafficSplit
    size: int


def routes(
    owner: Owner, traffic: Traffic, targets: Mapping[str, RouteTarget], user_header: str | None = None
) -> Iterator[JsonObject]:
    """Both routes: testers by header to the canary or variant, known users to theirs, everybody else by weight.

    Args:
        owner: the pipeline.
        traffic: of the spec.
        targets: targets by name. The weights of one sum up to 100 times its size.
        user_header: that keeps users with one variant of an experiment; None without one.
    """
    if traffic.gateway is None:
        return
    for kind in KINDS:
        backends = [
            {**_service(owner, kind, target, revision), "weight": weight * item.size}
            for target, item in targets.items()
            for revision, weight in item.split.shares.items()
        ]
        rules = [_rule(kind, {}, backends, _mirror_filters(owner, kind, traffic, targets))]
        canaries = _backends(owner, kind, targets, {target: item.split.canary for target, item in targets.items()})
        if canaries:
            rules.insert(0, _rule(kind, _header_match(traffic.header.name, traffic.header.value), canaries, []))
        if user_header is not None:
            rules = [*_experiment_rules(owner, kind, traffic.header.name, user_header, targets), *rules]
        yield {
            "apiVersion": f"{API}/v1",
            "kind": kind,
            "metadata": metadata(owner.name, owner, naming.common_labels(owner.name, naming.SERVING)),
            "spec": {**parents(traffic.gateway), "rules": rules},
        }


def parents(gateway: GatewayRef) -> JsonObject:
    """Fields of a route that attach it to a Gateway."""
    parent = {"group": API, "kind": "Gateway", "name": gateway.name}
    options = {"namespace": gateway.namespace, "sectionName": gateway.section_name}
    parent |= {key: value for key, value in options.items() if value is not None}
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
        # An image takes as long as it takes: a proxy's default limit would cut the slow ones.
        rule["timeouts"] = {"request": "0s"}
    return rule


def _experiment_rules(
    owner: Owner, kind: str, tester: str, user: str, targets: Mapping[str, RouteTarget]
) -> Iterator[JsonObject]:
    """Testers by a variant's name, then users by their hash: every bucket is somebody's.

    Rules for users never overlap, so it does not matter which of them a proxy tries first.
    """
    splits = {target: item.split for target, item in targets.items()}
    shares = next(iter(splits.values())).variants
    unused: list[range] = []
    full_weights = [share.full_weight for share in shares]
    *variant_buckets, stable = buckets.allocate_buckets([*full_weights, 100 - sum(full_weights)])
    users: list[JsonObject] = []
    for number, (share, allocated) in enumerate(zip(shares, variant_buckets, strict=True)):
        complete = share.weight == share.full_weight
        filled = len(allocated) if complete else buckets.BUCKETS * share.weight // 100
        now, later = allocated[:filled], allocated[filled:]
        unused += [later] if later else []
        revisions = {target: split.variants[number].revision or split.stable for target, split in splits.items()}
        backends = _backends(owner, kind, targets, revisions)
        if now:
            yield _rule(kind, _header_match(tester, share.name), backends, [])
            users.append(_rule(kind, _user_hash_match(user, [now]), list(map(dict, backends)), []))
    yield from users
    plain = _backends(owner, kind, targets, {target: split.stable for target, split in splits.items()})
    yield _rule(kind, _user_hash_match(user, [*unused, stable]), plain, [])


def _backends(
    owner: Owner, kind: str, targets: Mapping[str, RouteTarget], revisions: Mapping[str, str | None]
) -> list[JsonObject]:
    """One revision of each target, by the targets' sizes; none of a target without one."""
    return [
        {**_service(owner, kind, target, revision), "weight": targets[target].size}
        for target, revision in revisions.items()
        if revision is not None
    ]


def _header_match(name: str, value: str) -> JsonObject:
    return {"headers": [{"type": "Exact", "name": name, "value": value}]}


def _user_hash_match(name: str, ranges: Iterable[range]) -> JsonObject:
    return {"headers": [{"type": "RegularExpression", "name": name, "value": buckets.pattern(ranges)}]}


def _mirror_filters(owner: Owner, kind: str, traffic: Traffic, targets: Mapping[str, RouteTarget]) -> list[JsonObject]:
    percent = traffic.mirror_percent
    if percent is None:
        return []
    share = {"percent": percent} if percent < ALL_PERCENT else {}
    return [
        {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": _service(owner, kind, target, item.split.canary), **share},
        }
        for target, item in targets.items()
        if item.split.canary is not None
    ]


def _service(owner: Owner, kind: str, target: str, revision: str) -> JsonObject:
    port = dict(PORTS)["http" if kind == "HTTPRoute" else "grpc"]
    return {"group": "", "kind": "Service", "name": naming.revision_name(owner.name, target, revision), "port": port}
