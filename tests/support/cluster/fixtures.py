"""Fixtures of one real cluster: Kubernetes, images, the chart, and a hub with good and broken checkpoints."""

from __future__ import annotations

import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from examples.demo_support import hub
from examples.demo_support.cluster import Cluster, bring_up
from examples.demo_support.commands import Tools
from examples.demo_support.install import Images, build_images, install_operator
from examples.demo_support.settings import Settings
from tests.support.cluster.kube import Kube, eventually
from tests.support.cluster.repositories import REPOSITORIES, hub_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HUB_NAMESPACE = "tests-hub"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def run_devcluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.devcluster", *arguments], capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The embedded cluster. One that did not run before is taken down again; `down` itself looks for leftovers."""
    ran_before = run_devcluster("pid", "kube-apiserver").returncode == 0
    try:
        yield bring_up(Settings(images={}), Tools(), print)
    finally:
        if not ran_before:
            down = run_devcluster("down")
            assert down.returncode == 0, down.stderr


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    built, _changed = build_images(cluster.registry, print)
    return built


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: Images) -> Kube:
    """The operator, installed by Helm, with a hub to fetch from. Bound to the operator's namespace."""
    kube = Kube(cluster.tools.environment, HUB_NAMESPACE)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HUB_NAMESPACE, "labels": RESTRICTED}})
    kube.apply(*hub_objects(HUB_NAMESPACE, images["demo-hub"], REPOSITORIES))
    kube.run("rollout", "status", f"deployment/{hub.NAME}", "--timeout=300s")
    install_operator(cluster.tools, images, HUB_NAMESPACE)
    return Kube(cluster.tools.environment, "diffusion-operator")


@pytest.fixture(scope="session")
def hub_kube(operator: Kube) -> Kube:
    return Kube(operator.environment, HUB_NAMESPACE)


def _namespaces(environment: Kube) -> Iterator[Callable[[], Kube]]:
    made: list[Kube] = []

    def make() -> Kube:
        kube = Kube(environment.environment, f"test-{secrets.token_hex(4)}")
        metadata = {"name": kube.namespace, "labels": RESTRICTED}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        made.append(kube)
        return kube

    yield make
    for kube in made:
        kube.run("delete", "dp,jobs,deployments,pods", "--all", "--wait=false")
    for kube in made:
        _remove(kube)


def _remove(kube: Kube) -> None:
    # Of a namespace with pods in it Kubernetes takes care again after half of the time that they may take to end.
    eventually(lambda: not kube.list("pods"), 200, lambda: f"pods are gone\n{kube.run('get', 'pods')}")
    kube.delete("namespace", kube.namespace, wait=False)
    gone = f"namespace {kube.namespace} is gone"
    eventually(lambda: kube.get("namespace", kube.namespace) is None, 100, gone)


@pytest.fixture
def namespace(operator: Kube) -> Iterator[Kube]:
    """A namespace of the test's own at the strictest pod security level; nothing of it is left afterwards."""
    makers = _namespaces(operator)
    yield next(makers)()
    next(makers, None)


@pytest.fixture(scope="module")
def shared_namespace(operator: Kube) -> Iterator[Kube]:
    """The same, for all tests of a module."""
    makers = _namespaces(operator)
    yield next(makers)()
    next(makers, None)
