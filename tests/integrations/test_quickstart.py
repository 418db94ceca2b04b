"""The quick start as it is written: from images in a registry with a path and a password to an image, and back.

The tests share one installation, in order. The registry is real, and pods pull from it with a pull secret.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from PIL import Image

from examples.demo_training.grading import grade
from tests.support.cluster.kube import Kube, Object, eventually
from tests.support.cluster.pipelines import BUILD_SECONDS
from tests.support.images.registry_process import PASSWORD, PROGRAM, USER, RunningRegistry, running_registry
from tests.support.integrations.reader import Reader
from tests.support.paths import ROOT
from tools.common.packages import install_debian_packages, require_program
from tools.common.paths import cache_directory
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from examples.demo_support.cluster import Cluster

PATH = "project/team"
NAMESPACE = "quickstart"
OPERATOR_NAMESPACE = "diffusion-operator"
PROMPT = "a red star on a blue background"
QUICKSTART, INSTALLING = ROOT / "docs" / "quickstart.md", ROOT / "docs" / "installing.md"


@dataclass(frozen=True)
class Visit:
    """Somebody's first hour: who reads, with which registry and port, and where the image will be."""

    reader: Reader
    kube: Kube
    registry: RunningRegistry
    port: int
    image: Path


@pytest.fixture(scope="module")
def registry() -> Iterator[RunningRegistry]:
    """A registry with a password; it holds gigabytes, and none of them outlives the tests."""
    if not Path(PROGRAM).exists():
        install_debian_packages(["docker-registry"])
    with (
        tempfile.TemporaryDirectory(prefix="quickstart-registry-") as folder,
        running_registry(Path(folder), tls=False, password=True) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def visit(cluster: Cluster, registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """A new namespace in a cluster without the operator, a login at the registry, and nothing else."""
    for program in ("curl", "jq"):
        require_program(program)
    folder = tmp_path_factory.mktemp("quickstart")
    environment = new_home(folder, cluster.tools.environment, registry)
    kube = Kube(environment, NAMESPACE)
    releases = cluster.tools.output("helm", "list", "--all-namespaces", "--short")
    assert not releases, f"installed already: {releases}; `make cluster-down` first"
    kube.run("create", "namespace", NAMESPACE)
    kube.run("config", "set-context", "--current", f"--namespace={NAMESPACE}")
    (port,) = free_ports(1)
    names = {
        "registry.example.com/project": f"{registry.host}/{PATH}",
        "my-images.yaml": str(folder / "my-images.yaml"),
        "image.png": str(folder / "image.png"),
        "service/shapes 8000": f"service/shapes {port}:8000",
        "localhost:8000": f"localhost:{port}",
        "--timeout=30m": f"--timeout={BUILD_SECONDS:.0f}s",
    }
    yield Visit(Reader(environment, names), kube, registry, port, folder / "image.png")
    kube.delete("namespace", NAMESPACE)


def new_home(folder: Path, environment: Mapping[str, str], registry: RunningRegistry) -> dict[str, str]:
    """The environment of somebody whose home has a login at the registry and a kubeconfig, and nothing more."""
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    login = folder / ".docker" / "config.json"
    login.parent.mkdir()
    login.write_text(json.dumps({"auths": {registry.host: {"auth": encoded}}}))
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(Path(environment["KUBECONFIG"]).read_text())
    caches = {
        "DIFFUSION_OPERATOR_CACHE": str(cache_directory()),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
    }
    inherited = {
        name: value for name, value in environment.items() if name not in {"REGISTRY_AUTH_FILE", "DOCKER_CONFIG"}
    }
    return {**inherited, **caches, "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}


def pods(kube: Kube, *namespaces: str) -> list[Object]:
    return [pod for namespace in namespaces for pod in Kube(kube.environment, namespace).list("pods")]


def type_or_explain(visit: Visit, command: str) -> None:
    try:
        visit.reader.type(command)
    except AssertionError as error:
        state = [
            Kube(visit.kube.environment, name).run("get", "pods,events") for name in (NAMESPACE, OPERATOR_NAMESPACE)
        ]
        raise AssertionError("\n".join([str(error), *state])) from error


@pytest.mark.timeout(2400)
def test_the_commands_of_the_quick_start_end_in_an_image(visit: Visit) -> None:
    *commands, forward, request = visit.reader.lines(QUICKSTART, "With the demo checkpoint")
    assert forward.endswith("&")
    for command in commands:
        type_or_explain(visit, command)
    with visit.reader.type_in_background(forward, visit.port):
        visit.reader.type(request)
    assert grade(np.asarray(Image.open(visit.image).convert("RGB")), PROMPT).both


def test_every_image_came_from_the_registry_that_wants_a_password(visit: Visit) -> None:
    tags = f"http://{visit.registry.host}/v2/{PATH}/diffusion-operator/tags/list"
    assert httpx.get(tags).status_code == httpx.codes.UNAUTHORIZED
    assert "demo" in httpx.get(tags, auth=(USER, PASSWORD)).json()["tags"]
    running = pods(visit.kube, NAMESPACE, OPERATOR_NAMESPACE)
    images = {container["image"] for pod in running for container in pod["spec"]["containers"]}
    assert {image.rpartition("/")[0] for image in images} == {f"{visit.registry.host}/{PATH}"}
    assert {secret["name"] for pod in running for secret in pod["spec"]["imagePullSecrets"]} == {"registry"}


def test_the_commands_for_removing_leave_nothing_of_it(visit: Visit) -> None:
    for command in Reader(visit.reader.environment, {}).lines(INSTALLING, "Removing"):
        visit.reader.type(command)
    assert visit.kube.get("crd", "diffusionpipelines.diffusion-operator.io") is None
    kinds = "jobs,services,persistentvolumeclaims,deployments.apps"
    eventually(
        lambda: (
            set(visit.kube.run("get", kinds, "-o", "name").split()) <= {"service/demo-hub", "deployment.apps/demo-hub"}
        ),
        120,
        lambda: visit.kube.run("get", kinds),
    )
    cluster_wide = visit.kube.run("get", "clusterroles,clusterrolebindings", "-o", "name").split()
    assert [name for name in cluster_wide if "diffusion" in name] == []
