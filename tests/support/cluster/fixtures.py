"""Fixtures of one real cluster: Kubernetes, images, the chart, and a hub with good and broken checkpoints."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from examples.demo_support import hub
from examples.demo_support.cluster import Cluster, bring_up
from examples.demo_support.commands import Tools
from examples.demo_support.install import Images, build_images, install_operator
from examples.demo_support.settings import Settings
from tests.support.cluster import canaries, library
from tests.support.cluster.kube import Kube, eventually
from tests.support.cluster.processes import Handover, devcluster_note, has_canaries_apart, process_count
from tests.support.cluster.repositories import REPOSITORIES, hub_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.cluster.library import Library

HUB_NAMESPACE = "tests-hub"
_STAGE, _CANARIES_FINISHED = "stage", "canaries-finished"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def run_devcluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.devcluster", *arguments], capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The embedded cluster. One that did not run before is taken down again; `down` itself looks for leftovers."""
    note = devcluster_note()
    ran_before = run_devcluster("pid", "kube-apiserver").returncode == 0
    if not ran_before:
        note.touch()
    try:
        yield bring_up(Settings(images={}), Tools(), print)
    finally:
        if not ran_before:
            down = run_devcluster("down")
            assert down.returncode == 0, down.stderr
            note.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    built, _changed = build_images(cluster.registry, print)
    return built


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: Images) -> Kube:
    """The operator, installed by Helm, with a hub to fetch from. Bound to the operator's namespace."""
    kube = Kube(cluster.tools.environment, HUB_NAMESPACE)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HUB_NAMESPACE, "labels": RESTRICTED}})
    _begin_to_pull(kube, images, "builder", "triton")
    kube.apply(*hub_objects(HUB_NAMESPACE, images["demo-hub"], REPOSITORIES))
    kube.run("rollout", "status", f"deployment/{hub.NAME}", "--timeout=300s")
    install_operator(cluster.tools, images, HUB_NAMESPACE)
    return Kube(cluster.tools.environment, "diffusion-operator")


def _begin_to_pull(kube: Kube, images: Images, *names: str) -> None:
    """Let the node pull large images, which takes it most of a minute, while hub and operator start."""
    eventually(lambda: kube.get("serviceaccount", "default"), 60, "the namespace has its service account")
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for name in names:
        container = {"name": "pull", "image": images[name], "command": ["true"], "securityContext": security}
        spec = {"restartPolicy": "Never", "containers": [container]}
        kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pull-{name}"}, "spec": spec})


@pytest.fixture(scope="session")
def hub_kube(operator: Kube) -> Kube:
    return Kube(operator.environment, HUB_NAMESPACE)


@dataclass
class Namespaces:
    """Namespaces at the strictest pod security level."""

    environment: Mapping[str, str]
    _begun: list[Kube] = field(default_factory=list)

    def begin(self) -> Kube:
        """Make one."""
        kube = Kube(self.environment, f"test-{secrets.token_hex(4)}")
        metadata = {"name": kube.namespace, "labels": RESTRICTED}
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self._begun.append(kube)
        return kube

    def empty(self, kube: Kube) -> None:
        """Delete what is in it; nobody waits for servers that finish their requests."""
        kube.run("delete", "dp,jobs,deployments,pods", "--all", "--wait=false")

    def remove(self) -> None:
        """Nothing of them is left."""
        for kube in self._begun:
            # Kubernetes looks again at a namespace with pods in it after half of the time that they may take to end.
            eventually(lambda kube=kube: not kube.list("pods"), 200, lambda kube=kube: kube.run("get", "pods"))  # type: ignore[misc]
            kube.delete("namespace", kube.namespace, wait=False)
        for kube in self._begun:
            gone = f"namespace {kube.namespace} is gone"
            eventually(lambda kube=kube: kube.get("namespace", kube.namespace) is None, 100, gone)  # type: ignore[misc]


@pytest.fixture(scope="session")
def namespaces(operator: Kube) -> Iterator[Namespaces]:
    """Makes namespaces that the operator looks after; nothing of them is left at the end of the session."""
    namespaces = Namespaces(operator.environment)
    yield namespaces
    namespaces.remove()


@pytest.fixture
def namespace(namespaces: Namespaces) -> Iterator[Kube]:
    """A namespace of the test's own."""
    kube = namespaces.begin()
    yield kube
    namespaces.empty(kube)


@pytest.fixture(scope="module")
def shared_namespace(namespaces: Namespaces) -> Iterator[Kube]:
    """The same, for all tests of a module."""
    kube = namespaces.begin()
    yield kube
    namespaces.empty(kube)


@dataclass(frozen=True)
class Ahead:
    """What is built while tests run that do not need it, one after the other.

    Attributes:
        library: what examples/pipeline.yaml was built into.
        fetched: from then on nothing that is built ahead needs the hub.
        canaries: the namespace of the pipeline that has the canaries, which serves.
    """

    library: Future[Library]
    fetched: Future[Kube]
    canaries: Future[Kube]


@dataclass(frozen=True)
class Stage:
    """Where canaries are tested.

    Attributes:
        kube: the namespace of the pipeline that has the canaries, which serves.
        tools: programs that reach the cluster.
        images: in the cluster's registry.
    """

    kube: Kube
    tools: Tools
    images: Images

    def document(self) -> dict[str, Any]:
        """As another process of this run needs it."""
        own = {name: value for name, value in self.tools.environment.items() if os.environ.get(name) != value}
        return {"namespace": self.kube.namespace, "environment": own, "images": self.images}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Stage:
        """The other way round."""
        tools = Tools().with_environment(document["environment"])
        return cls(Kube(tools.environment, document["namespace"]), tools, document["images"])


@pytest.fixture(scope="session", autouse=True)
def handover(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handover]:
    """To and from the other process, which never waits for one that has ended."""
    base = tmp_path_factory.getbasetemp()
    handover = Handover((base if process_count(request.config) == 1 else base.parent) / "handover")
    yield handover
    handover.publish_default(_STAGE, {"problem": "the process that builds the pipeline of the canaries has ended"})
    handover.publish_default(_CANARIES_FINISHED, {})


@pytest.fixture(scope="session")
def canaries_apart(request: pytest.FixtureRequest) -> bool:
    """Whether another process tests the canaries of the pipeline that this one has built, or the other way round."""
    return has_canaries_apart({item.path.name for item in request.session.items}, process_count(request.config))


@pytest.fixture(scope="session")
def wait_for_canaries(handover: Handover, canaries_apart: bool) -> Callable[[], None]:  # noqa: FBT001 - a fixture
    """Returns when the other process, if there is one, needs the cluster no more."""

    def wait() -> None:
        if canaries_apart:
            handover.receive(_CANARIES_FINISHED)

    return wait


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the library's artifacts; what a test has built from nothing is there already."""
    return tmp_path_factory.mktemp("library")


@pytest.fixture(scope="session")
def ahead(
    cluster: Cluster,
    images: Images,
    namespaces: Namespaces,
    library_folder: Path,
    handover: Handover,
    wait_for_canaries: Callable[[], None],
) -> Iterator[Ahead]:
    """All of it is built in one thread."""
    first, second = namespaces.begin(), namespaces.begin()

    def publish(canaries: Future[Kube]) -> None:
        problem = canaries.exception()
        stage = {"problem": str(problem)} if problem else Stage(canaries.result(), cluster.tools, images).document()
        handover.publish(_STAGE, stage)

    with ThreadPoolExecutor(1) as thread:
        built = thread.submit(library.build, first, library_folder)
        fetched = thread.submit(lambda: canaries.begin(second, built.result()))
        served = thread.submit(lambda: canaries.finish(fetched.result()))
        served.add_done_callback(publish)
        yield Ahead(built, fetched, served)
    wait_for_canaries()
    for kube in (first, second):
        namespaces.empty(kube)


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest,
    handover: Handover,
    canaries_apart: bool,  # noqa: FBT001 - a fixture
) -> Iterator[Stage]:
    """Waits for the pipeline that has the canaries."""
    if not canaries_apart:
        cluster, images, ahead = (request.getfixturevalue(name) for name in ("cluster", "images", "ahead"))
        yield Stage(ahead.canaries.result(), cluster.tools, images)
        return
    try:
        document = handover.receive(_STAGE)
        assert "problem" not in document, document["problem"]
        yield Stage.read(document)
    finally:
        handover.publish(_CANARIES_FINISHED, {})


@pytest.fixture(scope="session")
def built(ahead: Ahead) -> Library:
    """What examples/pipeline.yaml was built into; waits for it."""
    return ahead.library.result()
