"""Targets with GPUs on a real API server and a real scheduler, with nodes that only exist on paper."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from diffusion_operator import naming
from diffusion_operator.kube_client import connect
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.cluster.admission import answer, with_schema
from tests.support.cluster.control_plane import component
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.operator.fake_cluster import result_of
from tests.support.paths import CRD
from tests.support.resource_parts import pipeline
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = Settings(
    "b:1", "s:1", tensorrt_builder_image="trt:1", tensorrt_serving_image="trts:1", compile_jobs_per_sku=1
)
L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
A100 = {"name": "a100", "gpu": {"product": "NVIDIA-A100-SXM4-80GB"}}
SKU = "NVIDIA-L4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    log = tmp_path_factory.mktemp("scheduler") / "log"
    with api_server() as running, component(running, "kube-scheduler", log):
        running.apply(CRD)
        yield running


@pytest.fixture(scope="module")
def kube(server: ApiServer) -> Kube:
    return with_schema(Kube(server.environment, "default"))


def add_node(kube: Kube, name: str, product: str = "") -> None:
    """A node with 4 cores, and one GPU of the product where one is named."""
    labels = {"kubernetes.io/hostname": name} | ({"nvidia.com/gpu.product": product} if product else {})
    kube.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    amounts = {"cpu": "4", "memory": "16Gi", "pods": "50"} | ({"nvidia.com/gpu": "1"} if product else {})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}
    kube.run("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    kube.run("patch", "node", name, "--type=merge", "-p", '{"spec":{"taints":[]}}')


def add_store(kube: Kube, name: str) -> None:
    """A claim that is bound, as a provisioner would have left it."""
    access = {"accessModes": ["ReadWriteMany"]}
    where = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nowhere"}, "storageClassName": ""}
    used_by = {"claimRef": {"name": name, "namespace": kube.namespace}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    kube.apply(volume | {"spec": access | where | used_by})
    bound = {"name": name, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
    claim = {"volumeName": name, "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    kube.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": bound, "spec": access | claim})


def reconcile(server: ApiServer, name: str = "shapes") -> None:
    """One pass of the operator."""

    async def go() -> None:
        async with connect(str(server.user_kubeconfig)) as cluster:
            await Reconciler(cluster, SETTINGS).reconcile(PipelineKey("default", name))

    asyncio.run(go())


def jobs(kube: Kube, stage: str, sku: str = "") -> list[Object]:
    return kube.list("jobs", f"{naming.STAGE}={stage}" + (f",{naming.TARGET}={sku}" if sku else ""))


def let_go(jobs_of_stage: list[Object]) -> list[Object]:
    unfinished = [job for job in jobs_of_stage if not job.get("status", {}).get("conditions")]
    return [job for job in unfinished if not job["spec"].get("suspend")]


def finish(kube: Kube, jobs_of_stage: list[Object]) -> None:
    """The Jobs succeed; the result goes where the operator keeps it, since there are no pods to say it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"status": "True", "lastTransitionTime": now, "reason": "CompletionsReached", "message": ""}
    conditions = [{"type": kind, **ended} for kind in ("SuccessCriteriaMet", "Complete")]
    status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}
    for job in jobs_of_stage:
        name = job["metadata"]["name"]
        kube.run("annotate", "job", name, f"{naming.RESULT}={json.dumps(result_of(job))}")
        patch = json.dumps({"status": status})
        kube.run("patch", "job", name, "--subresource=status", "--type=merge", "-p", patch)


def add_pod(kube: Kube, job: Object) -> str:
    """The pod that the Job controller would make."""
    name, template = f"{job['metadata']['name']}-x", job["spec"]["template"]
    labels = template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    head = {"name": name, "labels": labels}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": template["spec"]})
    return name


def node_of(kube: Kube, pod: str) -> str:
    return str(((kube.get("pod", pod) or {}).get("spec") or {}).get("nodeName", ""))


def hold_gpu(kube: Kube) -> None:
    """Somebody else's pod takes the only L4."""
    container = {"name": "hold", "image": "a:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "holder"}, "spec": {"containers": [container]}})
    eventually(lambda: node_of(kube, "holder") == "l4-0", 180, "the holder gets the GPU")


@pytest.fixture(scope="module")
def compiling(server: ApiServer, kube: Kube) -> Kube:
    """A pipeline for two GPU products and a CPU that has come to its compile Jobs; all their pods are there."""
    add_node(kube, "cpu-0")
    add_node(kube, "l4-0", SKU)
    hold_gpu(kube)
    add_store(kube, "store")
    kube.apply(pipeline(storage={"claimName": "store"}, targets=[L4, A100, {"name": "cpu"}]))
    for stage in ("fetch", "export"):
        reconcile(server)
        finish(kube, jobs(kube, stage))
    reconcile(server)
    for job in let_go(jobs(kube, "compile")):
        add_pod(kube, job)
    return kube


def test_one_job_of_each_gpu_product_is_let_go_and_the_others_queue(compiling: Kube) -> None:
    for sku, expected in ((SKU, 1), ("NVIDIA-A100-SXM4-80GB", 1), ("cpu", 4)):
        assert len(jobs(compiling, "compile", sku)) == 4
        assert len(let_go(jobs(compiling, "compile", sku))) == expected, sku


def test_what_is_waited_for_is_told_with_the_number_of_nodes(server: ApiServer, compiling: Kube) -> None:
    waits = {"1 node has NVIDIA-L4, 0 free", "0 nodes have NVIDIA-A100-SXM4-80GB"}

    def waiting_condition() -> Object | None:
        """The condition once it names both products: the scheduler judges one pod after the other."""
        reconcile(server)
        state = condition(compiling.get("dp", "shapes"), "EnginesReady")
        return state if all(text in state.get("message", "") for text in waits) else None

    state = eventually(waiting_condition, 180, lambda: str(condition(compiling.get("dp", "shapes"), "EnginesReady")))
    assert state["reason"] == "WaitingForGPU"
    assert state["message"].startswith("Since 2")
    skus = (compiling.get("dp", "shapes") or {})["status"]["components"]
    assert sorted(part["skus"][SKU]["state"] for part in skus.values()) == ["Pending", "Queued", "Queued", "Queued"]


def test_the_other_target_goes_on(server: ApiServer, compiling: Kube) -> None:
    for stage in ("compile", "assemble", "parity"):
        finish(compiling, let_go(jobs(compiling, stage, "cpu" if stage == "compile" else "")))
        reconcile(server)
    [deployment] = compiling.list("deployments")
    assert deployment["metadata"]["labels"][naming.TARGET] == "cpu"


def test_a_gpu_that_becomes_free_gets_the_build_and_its_end_lets_the_next_go(
    server: ApiServer, compiling: Kube
) -> None:
    [first] = let_go(jobs(compiling, "compile", SKU))
    pod = f"{first['metadata']['name']}-x"
    assert node_of(compiling, pod) == ""
    # No kubelet is there to end it.
    compiling.run("delete", "pod", "holder", "--grace-period=0", "--force")
    eventually(lambda: node_of(compiling, pod) == "l4-0", 180, "the compile pod runs on the node with the L4")
    finish(compiling, [first])
    reconcile(server)
    [second] = let_go(jobs(compiling, "compile", SKU))
    assert second["metadata"]["name"] != first["metadata"]["name"]


DRIVER = "gpu.example.com"
CLAIMED = {"name": "claimed", "gpu": {"product": "NVIDIA-H200", "resourceClaimTemplateName": "one-h200"}}


def offer(kube: Kube) -> None:
    """The class and the template that an administrator makes for GPUs of a driver."""
    api = {"apiVersion": "resource.k8s.io/v1"}
    driver_selector = {"cel": {"expression": f"device.driver == '{DRIVER}'"}}
    product = {"cel": {"expression": f"device.attributes['{DRIVER}'].productName == 'NVIDIA-H200'"}}
    request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER, "selectors": [product]}}
    kube.apply(
        {**api, "kind": "DeviceClass", "metadata": {"name": DRIVER}, "spec": {"selectors": [driver_selector]}},
        {
            **api,
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": "one-h200"},
            "spec": {"spec": {"devices": {"requests": [request]}}},
        },
    )


def publish(kube: Kube, node: str, product: str) -> None:
    """What the driver on a node says that it has."""
    devices = [{"name": "gpu-0", "attributes": {"productName": {"string": product}}}]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
    kube.apply({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": node}, "spec": spec})


def make_claims(kube: Kube, name: str) -> None:
    """The claims that the controller manager would make for a pod."""
    pod = kube.get("pod", name) or {}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"], "controller": True}
    claim_statuses = []
    for pod_claim in pod["spec"]["resourceClaims"]:
        template = kube.get("resourceclaimtemplate", pod_claim["resourceClaimTemplateName"]) or {}
        head = {"name": f"{name}-{pod_claim['name']}", "ownerReferences": [owner]}
        claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": head}
        kube.apply(claim | {"spec": template["spec"]["spec"]})
        claim_statuses.append({"name": pod_claim["name"], "resourceClaimName": head["name"]})
    patch = json.dumps({"status": {"resourceClaimStatuses": claim_statuses}})
    kube.run("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)


def test_a_gpu_by_claim_is_waited_for_and_taken_where_a_driver_has_it(server: ApiServer, compiling: Kube) -> None:
    """Dynamic Resource Allocation: no device plugin, no label of a node; the claim alone chooses."""
    for node in ("dra-0", "dra-1"):
        add_node(compiling, node)
    publish(compiling, "dra-0", "NVIDIA-L4")
    offer(compiling)
    compiling.apply(pipeline("claims", precision="float32", storage={"claimName": "store"}, targets=[CLAIMED]))
    # It joins the Jobs that the other pipeline has had done in this precision, and then needs one of its own.
    for _ in ("fetch", "export", "compile"):
        reconcile(server, "claims")
    [job] = let_go(jobs(compiling, "compile", "NVIDIA-H200"))
    pod = add_pod(compiling, job)
    make_claims(compiling, pod)

    def is_waiting() -> bool:
        reconcile(server, "claims")
        state = condition(compiling.get("dp", "claims"), "EnginesReady")
        return state["reason"] == "WaitingForGPU" and "claims of one-h200" in state["message"]

    eventually(is_waiting, 180, lambda: str(compiling.get("dp", "claims")))
    assert node_of(compiling, pod) == ""
    publish(compiling, "dra-1", "NVIDIA-H200")
    eventually(lambda: node_of(compiling, pod) == "dra-1", 180, lambda: str(compiling.get("pod", pod)))
    [claim] = compiling.list("resourceclaims")
    [device] = claim["status"]["allocation"]["devices"]["results"]
    assert (device["driver"], device["pool"], device["device"]) == (DRIVER, "dra-1", "gpu-0")


HUB = {"huggingFace": {"repo": "demo/shapes", "revision": "0" * 40}}
ACCEPTED: dict[str, Object] = {
    "two products and a cpu": {"targets": [L4, A100, {"name": "cpu"}]},
    "a MIG slice": {"targets": [{"name": "s", "gpu": {"product": "A100", "resourceName": "nvidia.com/mig-1g.10gb"}}]},
    "a claim": {"targets": [{"name": "s", "gpu": {"product": "A100", "resourceClaimTemplateName": "one"}}]},
    "settings of TensorRT": {"targets": [L4], "engines": {"runtime": "tensorrt", "optimizationLevel": 5}},
    "Kueue": {"targets": [L4], "engines": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}},
    "every task": {
        "model": {"source": HUB, "controlNets": [{"name": "canny", "source": HUB}], "ipAdapter": {"source": HUB}},
        "pipelines": [
            {"task": "generate", "steps": [4, 20], "previews": [2, 10]},
            {"task": "generate", "steps": [20], "features": ["controlnet"]},
            {"task": "generate", "steps": [20], "features": ["ip_adapter"]},
            {"task": "inpaint", "steps": [20], "features": ["controlnet", "ip_adapter", "embeddings"]},
        ],
        "schedulers": [{"type": "LCM"}, {"type": "Euler", "name": "karras", "useKarrasSigmas": True}],
    },
    "everything about the model": {
        "model": {
            "source": HUB,
            "components": {"denoiser": {"source": HUB}, "text_encoder": {"source": HUB}, "vae": {"source": HUB}},
            "loras": [{"source": HUB, "weight": 0.7, "file": "a.safetensors"}],
            "clipSkip": 1,
            "longPrompts": True,
            "guidanceRescale": True,
        },
        "precision": "float16",
        "componentPrecision": {"vae_decoder": "float32"},
    },
}
REFUSED: dict[str, tuple[Object, str]] = {
    "tensorrt on a cpu": ({"engines": {"runtime": "tensorrt"}}, "needs a gpu in every target"),
    "onnxruntime on a gpu": ({"targets": [L4], "engines": {"runtime": "onnxruntime"}}, "serves on CPUs"),
    "settings of TensorRT without a gpu": ({"engines": {"workspace": 1024}}, "no target has a gpu"),
    "bfloat16 on a cpu": ({"precision": "bfloat16"}, "no bfloat16 on a CPU"),
    "no product": ({"targets": [{"name": "a", "gpu": {}}]}, "product"),
    "two ways to a gpu": (
        {"targets": [{"name": "a", "gpu": {
            "product": "A", "resourceName": "nvidia.com/gpu", "resourceClaimTemplateName": "b"}}]},
        "not both",
    ),
    "several of a claim": (
        {"targets": [{"name": "a", "gpu": {"product": "A", "count": 2, "resourceClaimTemplateName": "b"}}]},
        "leave count out",
    ),
    "the product twice": (
        {"targets": [{**L4, "nodeSelector": {"nvidia.com/gpu.product": "other"}}]}, "leave it out of nodeSelector",
    ),
    "our labels": ({"targets": [{"name": "a", "labels": {"diffusion-operator.io/target": "b"}}]}, "belong to the oper"),
    "a control image without a ControlNet": (
        {"pipelines": [{"task": "generate", "features": ["controlnet"]}]}, "feature controlnet needs a ControlNet",
    ),
    "a reference without an IP-Adapter": (
        {"pipelines": [{"task": "generate", "features": ["ip_adapter"]}]}, "feature ip_adapter needs an IP-Adapter",
    ),
    "a task twice": (
        {"pipelines": [{"task": "inpaint", "steps": [4]}, {"task": "inpaint", "steps": [20]}]}, "listed once",
    ),
    "a late preview": ({"pipelines": [{"task": "generate", "previews": [20]}]}, "before the last step"),
    "Heun to choose from": (
        {"schedulers": [{"type": "Heun"}], "pipelines": [{"task": "generate", "steps": [33]}]}, "at most 32 steps",
    ),
    "one scheduler and several": (
        {"scheduler": {"type": "DDIM"}, "schedulers": [{"type": "LCM"}]}, "use either scheduler or schedulers",
    ),
    "a pickle": ({"model": {"source": HUB, "loras": [{"source": HUB, "file": "a.ckpt"}]}}, "loras[0].file"),
    "no source": ({"model": {"source": {}}}, "exactly one of huggingFace, persistentVolumeClaim and archive"),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_can_be_served_is_accepted(kube: Kube, case: str) -> None:
    assert answer(kube, pipeline("right", **ACCEPTED[case])) == ""


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_with_the_reason(kube: Kube, case: str) -> None:
    spec, message = REFUSED[case]
    assert message in answer(kube, pipeline("wrong", **spec))
