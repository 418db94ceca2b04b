"""A pipeline whose claim one node can mount, in a cluster that has two: its pods share a node, wherever they would go.

The devcluster's volumes are folders that both nodes have, so nothing but the pods' own affinity keeps them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster.library import STORE, USE_STORE
from tests.support.cluster.nodes import tainted_node
from tests.support.cluster.pipelines import describe_namespace, example, wait_ready
from tools.devcluster.nodes import DEFAULT_NODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster.kube import Kube, Object
    from tests.support.cluster.library import Library

FIRST, SECOND = DEFAULT_NODES[0].name, "second-0"
TAINT = "tests/one-node"
TOLERATION = {"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}
READ_WRITE_ONCE = {**STORE, "spec": {**STORE["spec"], "accessModes": ["ReadWriteOnce"]}}


@dataclass(frozen=True)
class Preferring:
    """A pipeline all of whose pods may run on both nodes, and prefer one as much as Kubernetes lets them."""

    node: str

    @property
    def affinity(self) -> Object:
        """Of a pod."""
        term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}
        preference = {"weight": 100, "preference": {"matchExpressions": [term]}}
        return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}

    def pipeline(self, scheduler: str) -> Object:
        """examples/pipeline.yaml with this scheduler, on the user's own claim."""
        return example(
            storage=USE_STORE,
            targets=[{"name": "cpu", "tolerations": [TOLERATION]}],
            jobs={"affinity": self.affinity},
            serving={"podTemplate": {"spec": {"affinity": self.affinity}}},
            scheduler={"type": scheduler},
        )

    def pod(self) -> Object:
        """A pod that has no claim."""
        container = {
            "name": "nothing",
            "image": "devcluster.local/pause:1",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {
            "affinity": self.affinity,
            "tolerations": [TOLERATION],
            "securityContext": security,
            "containers": [container],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "without-claim"}, "spec": spec}


@pytest.fixture(scope="module")
def second_node(operator: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tainted_node(operator, tmp_path_factory.mktemp("nodes"), SECOND, TAINT):
        yield


def node_of_every_pod(kube: Kube) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in kube.list("pods")}


@pytest.mark.usefixtures("second_node")
def test_jobs_and_servers_follow_the_server_that_has_the_claim_although_they_prefer_the_other_node(
    built: Library, namespace: Kube
) -> None:
    namespace.apply(READ_WRITE_ONCE)
    built.fill(namespace)
    namespace.apply(Preferring(FIRST).pipeline("DDIM"))
    wait_ready(namespace)
    before = node_of_every_pod(namespace)
    assert set(before.values()) == {FIRST}, before

    other = Preferring(SECOND)
    namespace.apply(other.pod(), other.pipeline("Euler"))
    wait_ready(namespace)
    after = {name: node for name, node in node_of_every_pod(namespace).items() if name not in before}
    assert after.pop("without-claim") == SECOND, "a pod without the claim goes where it prefers to"
    assert {name.split("-")[0] for name in after} >= {"assemble", "parity", "shapes"}, describe_namespace(namespace)
    assert set(after.values()) == {FIRST}, after
