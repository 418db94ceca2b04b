"""Whatever is killed, whenever: letting things run gives the same end state."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.cluster.kube import Kube, Object, eventually
from tests.support.cluster.pipelines import BUILD_SECONDS, end_state, example, running_job_pod, wait_ready


@pytest.fixture(scope="module")
def undisturbed(shared_namespace: Kube) -> Object:
    """The end state of a run in which nothing was killed."""
    shared_namespace.apply(example())
    wait_ready(shared_namespace)
    return end_state(shared_namespace)


def kill(kube: Kube, pod: Object) -> None:
    kube.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--ignore-not-found")


def test_the_operator_may_be_killed_during_a_build(undisturbed: Object, namespace: Kube, operator: Kube) -> None:
    namespace.apply(example())
    for stage in ("fetch", "export", "compile"):
        selector = f"diffusion-operator.io/stage={stage}"
        eventually(lambda selector=selector: namespace.list("jobs", selector), BUILD_SECONDS, stage)  # type: ignore[misc]
        for pod in operator.list("pods"):
            kill(operator, pod)
    wait_ready(namespace)
    assert end_state(namespace) == undisturbed


def test_a_job_pod_may_be_killed_at_any_stage(undisturbed: Object, namespace: Kube) -> None:
    namespace.apply(example())
    killed = []
    for stage in ("fetch", "export", "compile"):
        pod = running_job_pod(namespace, stage)
        kill(namespace, pod)
        killed.append(pod["metadata"]["name"])
    wait_ready(namespace)
    assert end_state(namespace) == undisturbed
    left = {pod["metadata"]["name"] for pod in namespace.list("pods")}
    assert not left & set(killed)


def test_the_kubelet_may_be_killed_during_a_build(undisturbed: Object, namespace: Kube) -> None:
    namespace.apply(example())
    running_job_pod(namespace, "export")
    subprocess.run([sys.executable, "-m", "tools.devcluster", "restart", "kubelet", "--force"], check=True, timeout=120)
    wait_ready(namespace)
    assert end_state(namespace) == undisturbed
