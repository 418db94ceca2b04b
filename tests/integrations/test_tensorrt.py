"""TensorRT plans are compiled by Jobs on a node of their GPU product, while the CPU serves.

The GPU is simulated: scheduling is real, and so is the compiler, TensorRT for RTX behind a test-only trtexec, which
needs no device. Nothing here can serve the plans.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from PIL import Image

from diffusion_operator import naming
from examples.client import Request, generate
from examples.demo_support.install import OPERATOR_NAMESPACE, install_operator, split_reference, wait_for_rollout
from examples.demo_support.picture import port_forward
from examples.demo_support.settings import GUIDANCE, ROOT
from examples.demo_training.judge import judge
from images.buildah import open_buildah
from images.paths import default_paths
from tests.cluster.conftest import HUB_NAMESPACE, run_devcluster
from tests.cluster.kube import Kube, Object, condition, eventually
from tests.cluster.pipelines import BUILD_SECONDS, example, leftovers, story
from tests.component import tensorrt_rtx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.demo_support.cluster import Cluster
    from examples.demo_support.install import Images

NODES = {"NVIDIA-L4": "l4-0", "NVIDIA-A10G": "a10g-0"}
PROMPT = "a red circle on a blue background"
TRTEXEC = ROOT / "tests" / "component" / "trtexec"
CONTAINERFILE = """\
ARG BUILDER
FROM ${BUILDER}
USER 0:0
COPY rtx /opt/rtx
COPY trtexec nvidia-smi /usr/local/bin/
USER 65532:65532
"""
PROGRAMS = {
    "trtexec": 'PYTHONPATH=/opt/rtx exec python3 -m tests.component.trtexec.main "$@"',
    # No device is there to ask: it has what the Job was sent here for.
    "nvidia-smi": "echo \"GPU 0: $(tr '\\0' '\\n' < /proc/1/cmdline | sed -n '/^--target$/{n;p}') (UUID: GPU-0)\"",
}


def builder_with_tensorrt(builder: str, registry: str, folder: Path) -> str:
    """The builder's image with the test-only trtexec and nvidia-smi, pushed; returns its reference."""
    shutil.copytree(tensorrt_rtx.install(), folder / "rtx", symlinks=True)
    shutil.copytree(TRTEXEC, folder / "rtx" / "tests" / "component" / "trtexec")
    for name, command in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n# For tests only.\n{command}\n")
        (folder / name).chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    (folder / "Containerfile").write_text(CONTAINERFILE)
    sources = [*sorted(TRTEXEC.glob("*.py")), *(folder / name for name in PROGRAMS), folder / "Containerfile"]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
    repository, tag = split_reference(builder)
    name = f"{repository.rpartition('/')[2]}-rtx:{tag}-{content}"
    base = f"localhost/{repository.rpartition('/')[2]}:{tag}"
    buildah = open_buildah(default_paths())
    buildah.build(folder / "Containerfile", folder, f"localhost/{name}", [f"--build-arg=BUILDER={base}"])
    buildah.push(f"localhost/{name}", f"{registry}/{name}")
    return f"{registry}/{name}"


@contextmanager
def enabled(cluster: Cluster, images: Images, builder: str) -> Iterator[None]:
    """The operator has images for targets with a GPU; afterwards it is installed as it was."""
    try:
        enable(cluster, builder, images["triton"])
        yield
    finally:
        install_operator(cluster.tools, images, HUB_NAMESPACE)


def enable(cluster: Cluster, builder: str, serving: str) -> None:
    values = []
    for key, image in {"builder": builder, "serving": serving}.items():
        repository, tag = split_reference(image)
        values += [f"images.tensorrt.{key}.repository={repository}", f"images.tensorrt.{key}.tag={tag}"]
    options = [part for value in values for part in ("--set-string", value)]
    if cluster.tools.output("helm", "version", "--short").startswith("v4"):
        options.append("--force-conflicts")
    chart = str(ROOT / "charts" / "diffusion-operator")
    where = ["--namespace", OPERATOR_NAMESPACE, "--reset-then-reuse-values"]
    cluster.tools.output("helm", "upgrade", "diffusion-operator", chart, *where, *options, what="helm upgrade")
    wait_for_rollout(cluster.tools, "diffusion-operator", OPERATOR_NAMESPACE)


@contextmanager
def gpu_nodes(folder: Path) -> Iterator[None]:
    """One node more per product, each with two GPUs that only the scheduler knows of."""
    cpu: Object = {"name": "cpu-0"}
    gpus: list[Object] = [{"name": name, "gpu": {"product": sku, "count": 2}} for sku, name in NODES.items()]
    try:
        nodes(folder, [cpu, *gpus])
        yield
    finally:
        nodes(folder, [cpu])


def nodes(folder: Path, wanted: list[Object]) -> None:
    file = folder / "nodes.yaml"
    file.write_text(yaml.safe_dump({"nodes": wanted}))
    done = run_devcluster("up", "--nodes", str(file))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def compiled(
    cluster: Cluster,
    images: Images,
    operator: Kube,
    shared_namespace: Kube,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kube]:
    """A namespace with a pipeline for two GPU products and the CPU, all of whose repositories are there."""
    kube = Kube(operator.environment, shared_namespace.namespace)
    builder = builder_with_tensorrt(images["builder"], cluster.registry, tmp_path_factory.mktemp("image"))
    with gpu_nodes(tmp_path_factory.mktemp("nodes")), enabled(cluster, images, builder):
        gpus = [{"name": name, "gpu": {"product": sku}} for sku, name in NODES.items()]
        kube.apply(example(targets=[*gpus, {"name": "cpu"}]))
        built = lambda: condition(kube.get("dp", "shapes"), "RepositoryReady").get("status") == "True"  # noqa: E731
        eventually(built, BUILD_SECONDS, lambda: story(kube))
        yield kube
        kube.run("delete", "dp", "shapes", "--wait=false")
        eventually(lambda: not leftovers(kube), 300, lambda: story(kube))


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

    eventually(serves, 300, lambda: story(compiled))
    with port_forward(cluster.tools, "shapes-cpu", compiled.namespace) as url:
        picture = generate(url, 20, Request(prompt=PROMPT, seed=7, guidance_scale=GUIDANCE))
    assert judge(np.asarray(Image.open(io.BytesIO(picture))), PROMPT).both
