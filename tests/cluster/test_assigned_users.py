"""Namespaces that assign uid and groups themselves (OpenShift's `restricted-v2`): all pods run there."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from examples.client import Request, generate
from examples.demo_support.image import port_forward
from examples.demo_support.install import OPERATOR_NAMESPACE, upgrade_operator
from tests.support.cluster.assigned_users import LABEL, admit_pod, out_of_range, policies, refusal, wait_until_enforced
from tests.support.cluster.kube import Kube, Object
from tests.support.cluster.pipelines import example, wait_ready
from tests.support.paths import ROOT
from tools.charttools.render import objects, render
from tools.charttools.value_sets import IMAGES
from tools.devcluster.bare import api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.demo_support.cluster import Cluster

# As the operator writes them; unit tests compare.
WORKLOADS = ROOT / "tests" / "unit" / "operator" / "golden"
DEFAULT_USER = {"user": 65532, "group": 65532, "fsGroup": 65532}


@pytest.fixture(scope="module")
def strict_namespace() -> Iterator[Kube]:
    """An API server alone, with a namespace that assigns users."""
    with api_server() as server:
        programs = f"{server.kubectl.parent}:{os.environ['PATH']}"
        kube = Kube(os.environ | {"KUBECONFIG": str(server.kubeconfig), "PATH": programs}, "strict")
        labels = {**LABEL, "pod-security.kubernetes.io/enforce": "restricted"}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
        kube.apply(*policies())
        wait_until_enforced(kube)
        yield kube


def pods_of_the_chart(values: Object) -> list[Object]:
    """Specs of the operator's pod and of the one of `helm test`; their accounts are not there yet."""
    release = objects(render({**IMAGES, **values}))
    templates = [item["spec"]["template"]["spec"] for item in release if item["kind"] == "Deployment"]
    specs = templates + [item["spec"] for item in release if item["kind"] == "Pod"]
    return [{name: value for name, value in spec.items() if name != "serviceAccountName"} for spec in specs]


def pods_of_a_pipeline(suffix: str = "") -> list[Object]:
    """Specs of the pods of a Job and of a server."""
    workloads = [
        yaml.safe_load((WORKLOADS / f"{name}{suffix}.yaml").read_text()) for name in ("job-fetch-hub", "deployment")
    ]
    specs: list[Object] = [item["spec"]["template"]["spec"] for item in workloads]
    # A Deployment's own default, which a pod has to name.
    return [{"restartPolicy": "Always", **spec} for spec in specs]


def test_pods_without_users_of_their_own_get_those_of_the_namespace(strict_namespace: Kube) -> None:
    specs = [*pods_of_the_chart({"runAs": None}), *pods_of_a_pipeline("-assigned-user")]
    assert len(specs) == 4
    assert [out_of_range(admit_pod(strict_namespace, spec)) for spec in specs] == [[]] * 4


def test_pods_with_the_default_users_are_refused_there(strict_namespace: Kube) -> None:
    for spec in [*pods_of_the_chart({}), *pods_of_a_pipeline()]:
        assert "runAsUser is outside of the namespace's range" in refusal(strict_namespace, spec)


@contextmanager
def assign_users_in(kube: Kube) -> Iterator[None]:
    """The namespace assigns users while the block runs."""
    [(name, value)] = LABEL.items()
    kube.run("label", "namespace", kube.namespace, f"{name}={value}", "--overwrite")
    try:
        yield
    finally:
        kube.run("label", "namespace", kube.namespace, f"{name}-")


@contextmanager
def override_users(cluster: Cluster, numbers: Object | None) -> Iterator[None]:
    """The release leaves users out, or names others, while the block runs."""
    options = ["--reset-then-reuse-values", "--set-json"]
    upgrade_operator(cluster.tools, [*options, f"runAs={json.dumps(numbers)}"])
    try:
        yield
    finally:
        upgrade_operator(cluster.tools, [*options, f"runAs={json.dumps(DEFAULT_USER)}"])


def test_a_pipeline_is_built_and_served_by_users_of_the_namespace(cluster: Cluster, namespace: Kube) -> None:
    operator = Kube(namespace.environment, OPERATOR_NAMESPACE)
    namespace.apply(*policies())
    try:
        # The default users come back only after the operator's namespace takes them again.
        with override_users(cluster, None), assign_users_in(namespace), assign_users_in(operator):
            wait_until_enforced(operator)
            operator.run("rollout", "restart", "deployment/diffusion-operator")
            operator.run("rollout", "status", "deployment/diffusion-operator", "--timeout=300s")
            namespace.apply(example())
            wait_ready(namespace)
            with port_forward(cluster.tools, "shapes", namespace.namespace) as url:
                assert generate(url, 4, Request(prompt="a red circle", seed=7))
            pods = namespace.list("pods") + operator.list("pods", "app.kubernetes.io/name=diffusion-operator")
            assert any("diffusion-operator.io/revision" in item["metadata"]["labels"] for item in pods)
            numbers = {item["metadata"]["name"]: out_of_range(item["spec"]) for item in pods}
            assert [name for name, strange in numbers.items() if strange] == []
            namespace.delete("dp", "shapes")
    finally:
        for item in policies():
            namespace.delete(item["kind"], item["metadata"]["name"])
