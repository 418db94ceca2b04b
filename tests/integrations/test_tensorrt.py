"""TensorRT plans are compiled by Jobs on a node of their GPU product, while the CPU serves.

The GPU is simulated: scheduling is real, and so is the compiler, TensorRT for RTX behind a test-only trtexec, which
needs no device. Nothing here can serve the plans.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from PIL import Image

from diffusion_operator import naming
from examples.client import Request, generate
from examples.demo_support.image import port_forward
from examples.demo_support.install import image_options, install_operator, split_reference, upgrade_operator
from examples.demo_support.settings import GUIDANCE, ROOT
from examples.demo_training.grading import grade
from tests.support.cluster.fixtures import HUB_NAMESPACE, run_devcluster
from tests.support.cluster.kube import Object, condition, eventually
from tests.support.cluster.pipelines import BUILD_SECONDS, describe_namespace, example, leftovers
from tests.support.tensorrt import tensorrt_rtx
from tools.devcluster.nodes import DEFAULT_NODES
from tools.images.build import local_reference
from tools.images.buildah import open_buildah
from tools.images.paths import default_paths
from tools.images.recipes import by_name
from tools.images.registry import parse_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.demo_support.cluster import Cluster
    from examples.demo_support.install import Images
    from tests.support.cluster.kube import Kube

NODES = {"NVIDIA-L4": "l4-0", "NVIDIA-A10G": "a10g-0"}
PROMPT = "a red circle on a blue background"
TRTEXEC = ROOT / "tests" / "support" / "tensorrt" / "trtexec"
CONTAINERFILE = """\
ARG BUILDER
FROM ${BUILDER}
USER 0:0
COPY rtx /opt/rtx
COPY trtexec nvidia-smi /usr/local/bin/
USER 65532:65532
"""
PROGRAMS = {
    "trtexec": 'PYTHONPATH=/opt/rtx exec python3 -m tests.support.tensorrt.trtexec.main "$@"',
    # No device is there to ask: it has what the Job was sent here for.
    "nvidia-smi": "echo \"GPU 0: $(tr '\\0' '\\n' < /proc/1/cmdline | sed -n '/^--sku$/{n;p}') (UUID: GPU-0)\"",
}


def builder_with_tensorrt(builder: str, registry: str, folder: Path) -> str:
    """The builder's image with the test-only trtexec and nvidia-smi, pushed; returns its reference."""
    shutil.copytree(tensorrt_rtx.install(), folder / "rtx", symlinks=True)
    shutil.copytree(TRTEXEC, folder / "rtx" / "tests" / "support" / "tensorrt" / "trtexec")
    for name, command in PROGRAMS.items():
        tensorrt_rtx.write_program(folder / name, command)
    (folder / "Containerfile").write_text(CONTAINERFILE)
    sources = [*sorted(TRTEXEC.glob("*.py")), *(folder / name for name in PROGRAMS), folder / "Containerfile"]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
    recipe, (_, tag) = by_name("builder"), split_reference(builder)
    name = f"{recipe.repository}-rtx:{tag}-{content}"
    buildah = open_buildah(default_paths())
    base = f"--build-arg=BUILDER={local_reference(recipe, tag)}"
    buildah.build(folder / "Containerfile", folder, f"localhost/{name}", [base])
    buildah.push(f"localhost/{name}", f"{registry}/{name}", parse_registry(registry), None)
    return f"{registry}/{name}"


@contextmanager
def enabled(cluster: Cluster, images: Images, builder: str) -> Iterator[None]:
    """The operator has images for targets with a GPU; afterwards it is installed as it was."""
    try:
        options = image_options({"tensorrt.builder": builder, "tensorrt.serving": images["triton"]})
        upgrade_operator(cluster.tools, ["--reset-then-reuse-values", *options])
        yield
    finally:
        install_operator(cluster.tools, images, HUB_NAMESPACE)


@contextmanager
def gpu_nodes(folder: Path) -> Iterator[None]:
    """One node more per product, each with two GPUs that only the scheduler knows of."""
    usual: list[Object] = [{"name": node.name} for node in DEFAULT_NODES]
    gpus: list[Object] = [{"name": name, "gpu": {"product": sku, "count": 2}} for sku, name in NODES.items()]
    try:
        nodes(folder, [*usual, *gpus])
        yield
    finally:
        nodes(folder, usual)


def nodes(folder: Path, entries: list[Object]) -> None:
    file = folder / "nodes.yaml"
    file.write_text(yaml.safe_dump({"nodes": entries}))
    process = run_devcluster("up", "--nodes", str(file))
    assert process.returncode == 0, process.stderr


def has_repositories(kube: Kube) -> bool:
    """Whether the repositories of all targets are built; fails at once when a Job has failed."""
    failed_jobs = [job for job in kube.list("jobs") if condition(job, "Failed").get("status") == "True"]
    assert not failed_jobs, describe_namespace(kube)
    return condition(kube.get("dp", "shapes"), "RepositoryReady").get("status") == "True"


@pytest.fixture(scope="module")
def compiled(
    cluster: Cluster,
    images: Images,
    shared_namespace: Kube,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kube]:
    """A namespace with a pipeline for two GPU products and the CPU, all of whose repositories are there."""
    kube = shared_namespace
    builder = builder_with_tensorrt(images["builder"], cluster.registry, tmp_path_factory.mktemp("image"))
    with gpu_nodes(tmp_path_factory.mktemp("nodes")), enabled(cluster, images, builder):
        gpus = [{"name": name, "gpu": {"product": sku}} for sku, name in NODES.items()]
        # The test-only trtexec needs less than the real one, for which a Job requests 7 GiB.
        engines = {"resources": {"requests": {"cpu": "200m", "memory": "2Gi"}}}
        kube.apply(example(targets=[*gpus, {"name": "cpu"}], engines=engines))
        eventually(lambda: has_repositories(kube), BUILD_SECONDS, lambda: describe_namespace(kube))
        yield kube
        kube.run("delete", "dp", "shapes", "--wait=false")
        eventually(lambda: not leftovers(kube), 300, lambda: describe_namespace(kube))


@pytest.mark.parametrize(("sku", "runtime"), [*((sku, "tensorrt") for sku in NODES), ("cpu", "onnxruntime")])
def test_each_target_is_compiled_by_the_runtime_that_will_serve_it(compiled: Kube, sku: str, runtime: str) -> None:
    jobs = compiled.list("jobs", f"{naming.STAGE}=compile,{naming.TARGET}={sku}")
    results = [json.loads(job["metadata"]["annotations"][naming.RESULT]) for job in jobs]
    assert [result["runtime"] for result in results] == [runtime] * 4


@pytest.mark.parametrize(("sku", "node"), NODES.items())
def test_engines_of_a_gpu_are_compiled_on_a_node_of_its_product(compiled: Kube, sku: str, node: str) -> None:
    pods = compiled.list("pods", f"{naming.STAGE}=compile,{naming.TARGET}={sku}")
    assert {pod["spec"]["nodeName"] for pod in pods} == {node}


def test_each_product_has_engines_of_its_own(compiled: Kube) -> None:
    parts = (compiled.get("dp", "shapes") or {})["status"]["components"]
    for part in parts.values():
        assert {state["state"] for state in part["skus"].values()} == {"Ready"}
        assert len({state["digest"] for state in part["skus"].values()}) == len(NODES) + 1


def test_the_cpu_serves_beside_it(cluster: Cluster, compiled: Kube) -> None:
    def serves() -> bool:
        targets = (compiled.get("dp", "shapes") or {})["status"]["targets"]
        return any(target["name"] == "cpu" and target["readyReplicas"] for target in targets)

    eventually(serves, 300, lambda: describe_namespace(compiled))
    with port_forward(cluster.tools, "shapes-cpu", compiled.namespace) as url:
        image = generate(url, 20, Request(prompt=PROMPT, seed=7, guidance_scale=GUIDANCE))
    assert grade(np.asarray(Image.open(io.BytesIO(image))), PROMPT).both
