"""`spec.api` in custom resources: what is accepted, and what is refused with which words."""

from __future__ import annotations

from typing import Any

from tests.support.resource_parts import Refused

_OPEN: dict[str, Any] = {"auth": {"type": "None"}}
_KEYS: dict[str, Any] = {"auth": {"type": "Keys", "keysSecretRef": {"name": "keys"}}}
_BEHIND: dict[str, Any] = {"traffic": {"gateway": {"name": "web", "hostnames": ["*.a.example"]}}}


def _api(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of spec.api
    return {"api": {**_OPEN, **fields}}


ACCEPTED_APIS: dict[str, dict[str, Any]] = {
    "an API for everybody": _api(),
    "an API with everything": {
        "api": {
            "auth": {"type": "Keys", "keysSecretRef": {"name": "keys", "key": "a.json"}},
            "replicas": 1,
            "autoscaling": {"minReplicas": 1, "maxReplicas": 4, "targetCPUUtilization": 50},
            "limits": {
                "concurrent": 8,
                "waiting": 0,
                "perKey": {"concurrent": 8, "waiting": 0},
                "uploadMiB": 64,
                "bufferedMiB": 64,
                "pixels": 1048576,
                "timeout": "90s",
            },
            "provenance": {"embed": ["model", "prompt", "seed"], "signing": {"secretName": "signer"}},
            "gateway": {"name": "public", "namespace": "edge", "hostnames": ["images.example"]},
            "upstream": {"name": "proxy", "namespace": "edge", "port": 8080, "hostname": "b.a.example"},
            "networkPolicy": False,
            "image": "registry.example.com/gateway:1",
            "resources": {"requests": {"cpu": "100m"}},
            "nodeSelector": {"kind": "small"},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "serving",
        },
        "rollout": _BEHIND,
    },
    "an API with a Gateway of its own": _api(gateway={"name": "public"}),
}

REFUSED_APIS: dict[str, Refused] = {
    "api-without-auth": Refused({"api": {}}, "spec.api.auth", "spec.api.auth: "),
    "api-auth-without-keys": Refused(
        {"api": {"auth": {"type": "Keys"}}}, "spec.api.auth.keysSecretRef", "type Keys needs keysSecretRef"
    ),
    "api-keys-for-everybody": Refused(
        {"api": {"auth": {"type": "None", "keysSecretRef": {"name": "keys"}}}},
        "spec.api.auth.keysSecretRef",
        "type None has none",
    ),
    "api-limits-of-no-key": Refused(
        _api(limits={"perKey": {"waiting": 1}}), "spec.api.limits.perKey", "limits of keys need keys"
    ),
    "api-key-over-pod": Refused(
        {"api": {**_KEYS, "limits": {"concurrent": 2, "perKey": {"concurrent": 3}}}},
        "spec.api.limits.perKey",
        "cannot make more images",
    ),
    "api-upload": Refused(_api(limits={"uploadMiB": 200}), "spec.api.limits.uploadMiB", "has to fit into bufferedMiB"),
    "api-replicas": Refused(
        _api(autoscaling={"minReplicas": 3, "maxReplicas": 2}), "spec.api.autoscaling", "not be larger than maxReplicas"
    ),
    "api-cpu": Refused(
        _api(autoscaling={"maxReplicas": 2}, resources={"limits": {"cpu": 1}}),
        "spec.api.autoscaling",
        "add resources.requests.cpu",
    ),
    "api-without-upstream": Refused(
        {**_api(), "rollout": _BEHIND}, "spec.api.upstream", "the Service of its proxy in api.upstream"
    ),
    "api-upstream-of-nothing": Refused(
        _api(upstream={"name": "proxy"}), "spec.api.upstream", "which there is not: leave it out"
    ),
    "api-upstream-wildcard": Refused(
        {**_api(upstream={"name": "proxy", "hostname": "*.a.example"}), "rollout": _BEHIND},
        "spec.api.upstream.hostname",
        "without a wildcard",
    ),
    "api-target": Refused({**_api(), "targets": [{"name": "api"}]}, "spec.targets", "give the target another name"),
    "api-embed": Refused(_api(provenance={"embed": ["key"]}), "spec.api.provenance.embed[0]", '"prompt"'),
}
