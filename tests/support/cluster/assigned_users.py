"""Namespaces that assign users, as OpenShift's `restricted-v2` does, by Kubernetes' own admission policies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.cluster.kube import KubectlError, Object, eventually

if TYPE_CHECKING:
    from tests.support.cluster.kube import Kube

LABEL = {"tests.diffusion-operator.io/assigns-users": "true"}
USERS = range(1000680000, 1000690000)
NAME = "tests-assigned-users"
_FIELDS = ("runAsUser", "fsGroup")
_ASSIGN = """\
Object{{spec: Object.spec{{securityContext:
  has(object.spec.securityContext) && has(object.spec.securityContext.{field})
  ? Object.spec.securityContext{{}}
  : Object.spec.securityContext{{{field}: {first}}}
}}}}"""
_ALLOW = "object.spec.securityContext.{field} >= {first} && object.spec.securityContext.{field} <= {last}"


def policies() -> list[Object]:
    """What assigns a user and a group for volumes where a pod names none, and refuses pods outside of the range."""
    mutations = [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": _fill_range(_ASSIGN, field)}}
        for field in _FIELDS
    ]
    validations = [
        {"expression": _fill_range(_ALLOW, field), "message": f"{field} is outside of the namespace's range"}
        for field in _FIELDS
    ]
    return [
        _policy("MutatingAdmissionPolicy", {"mutations": mutations, "reinvocationPolicy": "Never"}),
        _policy("ValidatingAdmissionPolicy", {"validations": validations}),
        _object("MutatingAdmissionPolicyBinding", {"policyName": NAME}),
        _object("ValidatingAdmissionPolicyBinding", {"policyName": NAME, "validationActions": ["Deny"]}),
    ]


def wait_until_enforced(kube: Kube) -> None:
    """Policies are enforced a moment after they are created."""
    other, unset = restricted_pod({"runAsUser": 65532}), restricted_pod({})
    eventually(lambda: "range" in refusal(kube, other), 60, lambda: f"others are refused: {refusal(kube, other)}")
    eventually(lambda: not refusal(kube, unset), 60, lambda: f"users are assigned: {refusal(kube, unset)}")


def restricted_pod(security: Object) -> Object:
    """The spec of a pod at Pod Security's level `restricted`, with these fields of its securityContext."""
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "any",
        "image": "registry.example.com/any:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {"securityContext": {**restricted, **security}, "containers": [container]}


def admit_pod(kube: Kube, spec: Object) -> Object:
    """The spec of such a pod as the API server would store it; nothing is stored.

    Raises:
        KubectlError: the pod is refused.
    """
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "any-"}, "spec": spec}
    text = kube.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(document))
    stored: Object = json.loads(text)["spec"]
    return stored


def refusal(kube: Kube, spec: Object) -> str:
    """The API server's objection to such a pod; empty when there is none."""
    try:
        admit_pod(kube, spec)
    except KubectlError as error:
        return str(error)
    return ""


def out_of_range(spec: Object) -> list[str]:
    """Numbers of a pod that are not in the range."""
    contexts = [spec["securityContext"], *(part.get("securityContext", {}) for part in spec["containers"])]
    numbers = {(field, context[field]) for context in contexts for field in _FIELDS if field in context}
    missing = [field for field in _FIELDS if field not in spec["securityContext"]]
    return [*missing, *(f"{field} {number}" for field, number in sorted(numbers) if number not in USERS)]


def _fill_range(expression: str, field: str) -> str:
    return expression.format(field=field, first=USERS[0], last=USERS[-1])


def _policy(kind: str, spec: Object) -> Object:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    pods = {"namespaceSelector": {"matchLabels": LABEL}, "resourceRules": [rule]}
    return _object(kind, {"matchConstraints": pods, "failurePolicy": "Fail", **spec})


def _object(kind: str, spec: Object) -> Object:
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind}
    return {**head, "metadata": {"name": NAME}, "spec": spec}
