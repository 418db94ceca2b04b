"""A store that one node can mount: all pods share that node, and what is said when they cannot."""

from typing import Any

import pytest

from diffusion_contract.base import Toleration
from diffusion_contract.spec import Target
from diffusion_operator.manifests.store_node import HOST, StoreNode, node_conflicts, store_node, with_store_node
from diffusion_operator.settings import GpuNodeLabel
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster
from tests.support.operator.reconciling import build, reconcile, settle

ONE_NODE = ("ReadWriteOnce",)
L4: dict[str, Any] = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
A10G: dict[str, Any] = {"name": "a10g", "gpu": {"product": "NVIDIA-A10G"}}
SLICE: dict[str, Any] = {"name": "slice", "gpu": {"product": "NVIDIA-L4", "resourceName": "nvidia.com/mig-1g.10gb"}}
ALLOCATED: dict[str, Any] = {"name": "dra", "gpu": {"product": "NVIDIA-H100", "resourceClaimTemplateName": "h100"}}
CPU: dict[str, Any] = {"name": "cpu"}
FAST: dict[str, Any] = {"name": "fast", "nodeSelector": {"pool": "fast"}}
SLOW: dict[str, Any] = {"name": "slow", "nodeSelector": {"pool": "slow"}}
LABEL = GpuNodeLabel()
PRODUCT = "nvidia.com/gpu.product"
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists"}
TERM = {"labelSelector": {"matchLabels": {"diffusion-operator.io/claim": "shapes-store"}}, "topologyKey": HOST}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LONG_AGO = "2026-01-01T00:00:00Z"


def targets(*fields: dict[str, Any]) -> list[Target]:
    return [Target.model_validate(entry) for entry in fields]


@pytest.mark.parametrize(
    ("modes", "is_shared"),
    [
        (("ReadWriteMany",), True),
        (("ReadWriteOnce", "ReadWriteMany"), True),
        (("ReadWriteOnce",), False),
        (("ReadWriteOnce", "ReadOnlyMany"), False),
    ],
)
def test_only_a_claim_without_read_write_many_has_one_node(modes: tuple[str, ...], *, is_shared: bool) -> None:
    assert (store_node("shapes-store", modes, targets(CPU), LABEL) is None) == is_shared


@pytest.mark.parametrize(
    ("fields", "selector", "tolerates_gpus"),
    [
        ([CPU], {}, False),
        ([L4], {PRODUCT: "NVIDIA-L4"}, True),
        ([L4, CPU], {PRODUCT: "NVIDIA-L4"}, True),
        ([L4, SLICE], {PRODUCT: "NVIDIA-L4"}, True),
        ([CPU, FAST, L4], {PRODUCT: "NVIDIA-L4", "pool": "fast"}, True),
        ([ALLOCATED], {}, True),
    ],
)
def test_the_node_is_right_for_all_targets(
    fields: list[dict[str, Any]], selector: dict[str, str], *, tolerates_gpus: bool
) -> None:
    node = store_node("shapes-store", ONE_NODE, targets(*fields), LABEL)
    assert node is not None
    assert dict(node.node_selector) == selector
    assert [entry.key for entry in node.tolerations] == (["nvidia.com/gpu"] if tolerates_gpus else [])


@pytest.mark.parametrize(
    ("fields", "conflicts"),
    [
        ([CPU, L4], []),
        ([L4, SLICE], []),
        ([L4, ALLOCATED], []),
        ([L4, A10G], [f"target l4 needs NVIDIA-L4, target a10g needs NVIDIA-A10G ({PRODUCT})"]),
        ([FAST, CPU, SLOW], ["target fast needs fast, target slow needs slow (pool)"]),
    ],
)
def test_targets_that_no_node_is_right_for(fields: list[dict[str, Any]], conflicts: list[str]) -> None:
    assert list(node_conflicts(targets(*fields), LABEL)) == conflicts


def test_what_a_pod_has_already_stays() -> None:
    node = StoreNode("shapes-store", (("pool", "fast"),), (Toleration(key="nvidia.com/gpu", operator="Exists"),))
    affinity = {"nodeAffinity": {"a": 1}, "podAffinity": {REQUIRED: [{"topologyKey": "zone"}]}}
    pod = {"nodeSelector": {"arch": "arm64"}, "tolerations": [GPU_TAINT], "affinity": affinity, "volumes": []}
    assert with_store_node(pod, node) == {
        "nodeSelector": {"arch": "arm64", "pool": "fast"},
        "tolerations": [GPU_TAINT],
        "affinity": {"nodeAffinity": {"a": 1}, "podAffinity": {REQUIRED: [{"topologyKey": "zone"}, TERM]}},
        "volumes": [],
    }
    assert affinity["podAffinity"] == {REQUIRED: [{"topologyKey": "zone"}]}
    assert with_store_node(pod, None) is pod


def test_the_label_of_a_long_name_is_short_and_its_own() -> None:
    labels = [StoreNode(letter * 200).labels["diffusion-operator.io/claim"] for letter in "ab"]
    assert [len(label) for label in labels] == [63, 63]
    assert labels[0] != labels[1]


def one_node_cluster(*fields: dict[str, Any], mode: str = "ReadWriteOnce") -> FakeCluster:
    """A pipeline whose claim exists."""
    cluster = FakeCluster()
    cluster.apply_pipeline(targets=list(fields), storage={"size": "2Gi", "accessModes": [mode]})
    settle(cluster)
    return cluster


def add_claim(cluster: FakeCluster, name: str, mode: str) -> None:
    """A claim of somebody else."""
    head = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}"}
    cluster.objects["PersistentVolumeClaim", name] = {"metadata": head, "spec": {"accessModes": [mode]}}


def templates(cluster: FakeCluster) -> list[dict[str, Any]]:
    names = [(kind, name) for kind in ("Job", "Deployment") for name in cluster.names(kind)]
    return [cluster.objects[name]["spec"]["template"] for name in names]


def test_every_pod_of_the_pipeline_satisfies_the_affinity_of_every_other() -> None:
    """Also its own: kube-scheduler places the first pod only then."""
    cluster = one_node_cluster(L4, CPU)
    build(cluster)
    pods = templates(cluster)
    stages = {template["metadata"]["labels"].get("diffusion-operator.io/stage") for template in pods}
    assert stages == {"fetch", "export", "compile", "assemble", "parity", None}
    for template in pods:
        [term] = template["spec"]["affinity"]["podAffinity"][REQUIRED]
        assert term["topologyKey"] == HOST
        for other in pods:
            assert term["labelSelector"]["matchLabels"].items() <= other["metadata"]["labels"].items()
        assert template["spec"]["nodeSelector"] == {PRODUCT: "NVIDIA-L4"}
        assert GPU_TAINT in template["spec"]["tolerations"]


def test_pipelines_on_one_claim_share_its_node() -> None:
    cluster = FakeCluster()
    add_claim(cluster, "common", "ReadWriteOnce")
    for name in ("shapes", "other"):
        cluster.apply_pipeline(name, storage={"claimName": "common"})
        settle(cluster, name)
    labels = {template["metadata"]["labels"].get("diffusion-operator.io/claim") for template in templates(cluster)}
    assert labels == {"common"}


def test_a_shared_claim_places_nothing() -> None:
    cluster = one_node_cluster(L4, CPU, mode="ReadWriteMany")
    build(cluster)
    for template in templates(cluster):
        assert "affinity" not in template["spec"]
        assert "diffusion-operator.io/claim" not in template["metadata"]["labels"]


def test_a_volume_that_can_do_more_than_the_claim_asks_for_is_shared() -> None:
    cluster = one_node_cluster(CPU)
    claim = cluster.objects["PersistentVolumeClaim", "shapes-store"]
    claim["status"] = {"phase": "Bound", "accessModes": ["ReadWriteOnce", "ReadWriteMany"]}
    build(cluster)
    [deployment] = cluster.names("Deployment")
    assert "affinity" not in cluster.objects["Deployment", deployment]["spec"]["template"]["spec"]


def test_garbage_collection_runs_on_the_node_too() -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(storage={"size": "2Gi", "accessModes": ["ReadWriteOnce"], "gc": {"interval": "1h"}})
    build(cluster)
    [job] = [name for name in cluster.names("Job") if name.startswith("gc")]
    assert cluster.objects["Job", job]["spec"]["template"]["spec"]["affinity"]["podAffinity"] == {REQUIRED: [TERM]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([L4, A10G], "target l4 needs NVIDIA-L4, target a10g needs NVIDIA-A10G"),
        ([FAST, SLOW], "target fast needs fast, target slow needs slow (pool)"),
    ],
)
def test_targets_on_different_nodes_are_told_at_once(fields: list[dict[str, Any]], words: str) -> None:
    cluster = one_node_cluster(*fields)
    state = cluster.condition("EnginesReady")
    assert state["reason"] == "StorageNotShared"
    assert words in state["message"]
    assert "ReadWriteMany" in state["message"]
    assert cluster.names("Job") == []
    cluster.apply_pipeline(targets=fields[:1], storage={"size": "2Gi", "accessModes": ["ReadWriteOnce"]})
    settle(cluster)
    assert cluster.names("Job") != []


def test_an_existing_claim_for_one_pod_is_refused_in_words() -> None:
    cluster = FakeCluster()
    add_claim(cluster, "mine", "ReadWriteOncePod")
    cluster.apply_pipeline(storage={"claimName": "mine"})
    settle(cluster)
    state = cluster.condition("EnginesReady")
    assert state["reason"] == "StorageNotShared"
    assert "a single pod can use it" in state["message"]
    assert cluster.names("Job") == []


NO_NODE = "0/3 nodes are available: "
FULL = f"{NO_NODE}1 Insufficient memory, 2 node(s) didn't match pod affinity rules. preemption: 0/3"
GPU_TAKEN = f"{NO_NODE}1 Insufficient nvidia.com/gpu, 2 node(s) didn't match pod affinity rules. preemption: 0/3"
UNBOUND = f"{NO_NODE}pod has unbound immediate PersistentVolumeClaims. preemption: 0/3"
NO_CLASS = 'running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "shapes-store"'


@pytest.mark.parametrize(
    ("mode", "phase", "message", "reason", "words"),
    [
        ("ReadWriteOnce", "Bound", FULL, "StorageNotShared", "(its volume was made for node n1)"),
        ("ReadWriteOnce", "Bound", GPU_TAKEN, "WaitingForGPU", "take fewer replicas or targets"),
        ("ReadWriteMany", "Bound", FULL, "Unschedulable", "didn't match pod affinity"),
        ("ReadWriteMany", "Pending", UNBOUND, "Unschedulable", "spec.storage.accessModes: [ReadWriteOnce]"),
        ("ReadWriteMany", "Pending", NO_CLASS, "Unschedulable", "spec.storage.accessModes: [ReadWriteOnce]"),
        ("ReadWriteOnce", "Pending", UNBOUND, "Unschedulable", "check that its class exists"),
    ],
)
def test_what_a_pod_without_a_place_is_told(mode: str, phase: str, message: str, reason: str, words: str) -> None:
    cluster = one_node_cluster(L4, mode=mode)
    for _ in range(2):
        cluster.succeed_jobs()
        settle(cluster)
    claim = cluster.objects["PersistentVolumeClaim", "shapes-store"]
    claim["status"] = {"phase": phase}
    claim["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "n1"}
    for job in cluster.unfinished_jobs():
        condition = {"type": "PodScheduled", "status": "False", "lastTransitionTime": LONG_AGO, "message": message}
        pod = cluster.add_pod(job, {"phase": "Pending", "conditions": [condition]})
        pod["spec"] = job["spec"]["template"]["spec"]
    reconcile(cluster)
    state = cluster.condition("EnginesReady")
    assert state["reason"] == reason
    assert words in state["message"]
    assert message.split(": ")[1][:20] in state["message"]
