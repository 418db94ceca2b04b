"""A pipeline, or its whole namespace, may be deleted in the middle of a build: nothing stays, whoever is absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cluster.kube import Kube, eventually
from tests.support.cluster.library import STORE, USE_STORE
from tests.support.cluster.pipelines import describe_namespace, example, leftovers, running_job_pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster.library import Library

# The promise is 30 seconds; the rest is for a machine that is busy.
GONE_SECONDS = 60.0


@pytest.fixture
def no_operator(operator: Kube) -> Iterator[Kube]:
    """Called when nobody is to look after pipelines; the operator comes back afterwards."""
    yield operator
    operator.run("scale", "deployment/diffusion-operator", "--replicas=1")
    operator.run("rollout", "status", "deployment/diffusion-operator", "--timeout=300s")


def test_deleting_in_the_middle_of_a_build_leaves_nothing(namespace: Kube, no_operator: Kube, built: Library) -> None:
    """The store is the user's: what one build has made helps the next one to come further."""
    namespace.apply(STORE)
    built.fill_without_denoiser(namespace)
    for stage in ("fetch", "export"):
        namespace.apply(example(storage=USE_STORE))
        running_job_pod(namespace, stage)
        namespace.run("delete", "dp", "shapes", "--wait=false")
        eventually(
            lambda: not leftovers(namespace), GONE_SECONDS, lambda: f"nothing is left\n{describe_namespace(namespace)}"
        )
        assert namespace.get("pvc", "store") is not None
    namespace.apply(example(storage=USE_STORE))
    running_job_pod(namespace, "compile")
    no_operator.run("scale", "deployment/diffusion-operator", "--replicas=0")
    no_operator.run("wait", "--for=delete", "pod", "--all", "--timeout=120s")
    namespace.run("delete", "namespace", namespace.namespace, "--wait=false")
    gone = lambda: namespace.get("namespace", namespace.namespace) is None  # noqa: E731 - used once
    eventually(gone, GONE_SECONDS, lambda: f"the namespace is gone\n{describe_namespace(namespace)}")
