"""Namespaces that assign uid and groups themselves (OpenShift's `restricted-v2`): all pods run there."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from examples.client import Request, generate
from examples.demo_support.image import port_forward
from examples.demo_support.install import OPERATOR_NAMESPACE, upgrade_operator
from tests.support.cluster.assigned_users import LABEL, admit_pod, out_of_range, policies, refusal, wait_until_enforced
from tests.support.cluster.kube import Kube, Object
from tests.support.cluster.library import keep
from tests.support.cluster.pipelines import example, wait_ready
from tests.support.paths import ROOT
from tools.charttools.render import objects, render
from tools.charttools.value_sets import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.demo_support.cluster import Cluster

# As the operator writes them; unit tests compare.
WORKLOADS = ROOT / "tests" / "unit" / "operator" / "golden"
DEFAULT_USER = {"user": 65532, "group": 65532, "fsGroup": 65532}


@pytest.fixture(scope="module")
def strict_namespace(cluster: Cluster) -> Iterator[Kube]:
    """A namespace that assigns users; in it no pod is stored."""
    kube = Kube(cluster.tools.environment, "tests-strict")
    labels = {**LABEL, "pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kube.namespace, "labels": labels}})
    kube.apply(*policies())
    wait_until_enforced(kube)
    yield kube
    remove_policies(kube)
    kube.delete("namespace", kube.namespace, wait=False)


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


def set_label(kube: Kube, *, is_set: bool) -> None:
    """The namespace assigns users from now on, or does so no more."""
    [(name, value)] = LABEL.items()
    kube.run("label", "namespace", kube.namespace, f"{name}={value}" if is_set else f"{name}-", "--overwrite")


def set_users(cluster: Cluster, numbers: Object | None) -> None:
    """The release leaves users out, or names these; returns when the operator runs as it."""
    upgrade_operator(cluster.tools, ["--reset-then-reuse-values", "--set-json", f"runAs={json.dumps(numbers)}"])


def remove_policies(kube: Kube) -> None:
    """Nobody assigns users any more."""
    for item in policies():
        kube.delete(item["kind"], item["metadata"]["name"])


@contextmanager
def assigned_users(cluster: Cluster, *namespaces: Kube) -> Iterator[None]:
    """The namespaces, of which the first is the operator's, assign users while the block runs, and nobody else does."""
    namespaces[0].apply(*policies())
    try:
        for kube in namespaces:
            set_label(kube, is_set=True)
        wait_until_enforced(namespaces[0])
        set_users(cluster, None)
        yield
    finally:
        for kube in namespaces:
            set_label(kube, is_set=False)
        # The default users come back only after the operator's namespace takes them again.
        set_users(cluster, DEFAULT_USER)
        remove_policies(namespaces[0])


def test_a_pipeline_is_built_and_served_by_users_of_the_namespace(
    cluster: Cluster, namespace: Kube, library_folder: Path
) -> None:
    """From nothing: what it builds is what other tests start with."""
    operator = Kube(namespace.environment, OPERATOR_NAMESPACE)
    with assigned_users(cluster, operator, namespace):
        namespace.apply(example())
        wait_ready(namespace)
        with port_forward(cluster.tools, "shapes", namespace.namespace) as url:
            assert generate(url, 4, Request(prompt="a red circle", seed=7))
        pods = namespace.list("pods") + operator.list("pods", "app.kubernetes.io/name=diffusion-operator")
        assert any("diffusion-operator.io/revision" in item["metadata"]["labels"] for item in pods)
        numbers = {item["metadata"]["name"]: out_of_range(item["spec"]) for item in pods}
        assert [name for name, strange in numbers.items() if strange] == []
        keep(namespace, library_folder)
        namespace.delete("dp", "shapes")
