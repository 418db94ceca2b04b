"""Whatever is killed, whenever: letting things run gives the same end state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.cluster.fixtures import run_devcluster
from tests.support.cluster.pipelines import end_state, example, running_job_pod, wait_ready

if TYPE_CHECKING:
    from tests.support.cluster.kube import Kube, Object
    from tests.support.cluster.library import Library


def kill(kube: Kube, pod: Object) -> None:
    kube.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--ignore-not-found")


def test_operator_job_pods_and_kubelet_may_be_killed_at_any_stage(
    built: Library, namespace: Kube, operator: Kube
) -> None:
    """One build, in which every stage loses its pod and the operator, and the node's kubelet goes in the middle."""
    # The operator makes the claim, and nothing else yet.
    namespace.apply(example(suspend=True))
    built.fill_without_denoiser(namespace, "shapes-store")
    namespace.apply(example())
    killed = []
    for stage in ("fetch", "export", "compile"):
        pod = running_job_pod(namespace, stage)
        for server in operator.list("pods"):
            kill(operator, server)
        if stage == "export":
            restart = run_devcluster("restart", "kubelet", "--force")
            assert restart.returncode == 0, restart.stderr
        kill(namespace, pod)
        killed.append(pod["metadata"]["name"])
    wait_ready(namespace)
    assert end_state(namespace) == built.end_state
    remaining = {pod["metadata"]["name"] for pod in namespace.list("pods")}
    assert not remaining & set(killed)
