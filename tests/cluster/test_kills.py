"""Whatever is killed, whenever: letting things run gives the same end state."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kube import Kube, Object, eventually
from tests.cluster.pipelines import end_state, example, story, wait_ready

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def undisturbed(shared_namespace: Kube) -> Object:
    """The end state of a run in which nothing was killed."""
    shared_namespace.apply(example())
    wait_ready(shared_namespace)
    return end_state(shared_namespace)


def running_job_pod(kube: Kube, stage: str) -> Callable[[], Object | None]:
    def find() -> Object | None:
        pods = kube.list("pods", f"diffusion-operator.io/stage={stage}")
        return next((pod for pod in pods if pod["status"].get("phase") == "Running"), None)

    return find


def kill(kube: Kube, pod: Object) -> None:
    kube.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--ignore-not-found")


def test_the_operator_may_be_killed_during_a_build(undisturbed: Object, namespace: Kube, operator: Kube) -> None:
    namespace.apply(example())
    for stage in ("fetch", "export", "compile"):
        eventually(lambda stage=stage: namespace.list("jobs", f"diffusion-operator.io/stage={stage}"), 240, stage)  # type: ignore[misc]
        for pod in operator.list("pods"):
            kill(operator, pod)
    wait_ready(namespace)
    assert end_state(namespace) == undisturbed


def test_a_job_pod_may_be_killed_at_any_stage(undisturbed: Object, namespace: Kube) -> None:
    namespace.apply(example())
    killed = []
    for stage in ("fetch", "export", "compile"):
        pod = eventually(running_job_pod(namespace, stage), 240, lambda: f"a running {stage} pod\n{story(namespace)}")  # noqa: B023 - read at once
        kill(namespace, pod)
        killed.append(pod["metadata"]["name"])
    wait_ready(namespace)
    assert end_state(namespace) == undisturbed
    left = {pod["metadata"]["name"] for pod in namespace.list("pods")}
    assert not left & set(killed)


def test_the_kubelet_may_be_killed_during_a_build(undisturbed: Object, namespace: Kube) -> None:
    namespace.apply(example())
    eventually(running_job_pod(namespace, "export"), 240, lambda: f"a running export pod\n{story(namespace)}")
    subprocess.run([sys.executable, "-m", "devcluster", "restart", "kubelet", "--force"], check=True, timeout=120)
    wait_ready(namespace)
    assert end_state(namespace) == undisturbed
