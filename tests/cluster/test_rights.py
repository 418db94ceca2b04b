"""The chart grants what the operator uses, and nothing else: was_available by audit logs. The last module of a run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_operator.kube_client import connect
from tests.support.cluster.audit import Right, granted, read_requests, table
from tests.support.cluster.definitions import serve_foreign_apis
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.operator_process import operator_process
from tests.support.cluster.pipelines import ready
from tests.support.cluster.processes import HANDOVER_SECONDS
from tests.support.operator.fleet import ControllerClient, Fleet, claim, pipeline, revision, simulate_controllers
from tests.support.paths import CRD
from tools.charttools.render import NAMESPACE, objects, render
from tools.charttools.value_sets import IMAGES
from tools.devcluster.bare import USER, ApiServer, api_server
from tools.devcluster.configs import OPERATOR
from tools.devcluster.layout import default_root, layout_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE = Fleet(1, 1)
PIPELINE = ONE.reference(0)
# A pass takes milliseconds; the rest is for a machine that does other things.
SECONDS = 120.0
ROLES = {"ClusterRole": "diffusion-operator-diffusion-operator", "Role": "diffusion-operator-lease"}
EVERYBODY = {("authorization.k8s.io", "selfsubjectaccessreviews", "create")}
"""What Kubernetes lets every user do: ask for his own rights."""
KEDA = {"serverAddress": "http://prometheus:9090"}


def chart_roles() -> list[Object]:
    """Of the operator; the roles for people are not its own."""
    roles = [item for item in objects(render(IMAGES)) if item["metadata"]["name"] == ROLES.get(item["kind"])]
    assert len(roles) == len(ROLES)
    return roles


def binding(role: Object) -> Object:
    """Gives the role to the operator's user."""
    kind, head = role["kind"], role["metadata"]
    metadata = {"name": head["name"], **({"namespace": NAMESPACE} if kind == "Role" else {})}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": head["name"]},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[ApiServer]:
    """An API server at which the operator has exactly the chart's rights."""
    with api_server(audit=log, authorization="RBAC") as running:
        running.apply(CRD)
        yield running


@pytest.fixture(scope="module")
def kube(server: ApiServer) -> Kube:
    kube = Kube(server.environment, PIPELINE.namespace)
    for name in (NAMESPACE, PIPELINE.namespace):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    roles = chart_roles()
    Kube(kube.environment, NAMESPACE).apply(*roles, *map(binding, roles))
    serve_foreign_apis(kube)
    kube.apply(claim(kube.namespace))
    return kube


def spec(**changes: Any) -> Object:  # noqa: ANN401 - any field of the spec
    document = pipeline(PIPELINE, revision(1))
    return document | {"spec": document["spec"] | changes}


def live(server: ApiServer, kube: Kube, document: Object, *, suspended: bool = False) -> None:
    """Apply it, and simulate the controllers until the operator says that it is served, or suspended."""

    async def simulate() -> None:
        async with connect(str(server.kubeconfig)) as connection:
            await simulate_controllers(ControllerClient.of(connection), ONE)

    def settled() -> bool:
        asyncio.run(simulate())
        if not suspended:
            return ready(kube, PIPELINE.name) is not None
        return condition(kube.get("dp", PIPELINE.name), "Ready").get("reason") == "Suspended"

    kube.apply(document)
    eventually(settled, SECONDS, lambda: kube.run("describe", "dp"))


def test_a_full_life_is_possible_with_the_rights_that_the_chart_grants(
    server: ApiServer, kube: Kube, log: Path, tmp_path: Path
) -> None:
    keda = {"maxReplicas": 3, "provider": "keda", "keda": KEDA}
    two = [{"name": "cpu"}, {"name": "spare"}]
    source = {"source": {"huggingFace": {"repo": "demo/shapes", "revision": revision(2)}}}
    api = {"auth": {"type": "None"}, "autoscaling": {"maxReplicas": 3}, "gateway": {"name": "web"}}
    options = {"LEASE_NAMESPACE": NAMESPACE, "IDENTITY": "first", "GATEWAY_IMAGE": "g:1"}
    with operator_process(server, tmp_path / "operator.log", **options):
        for targets in ([{"name": "cpu", "autoscaling": {"maxReplicas": 3}}], [{"name": "cpu", "autoscaling": keda}]):
            live(server, kube, spec(targets=targets))
        live(server, kube, spec(targets=two))
        live(server, kube, spec(rollout={"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}}))
        live(server, kube, spec(model=source, api=api))
        live(server, kube, spec(model=source))
        live(server, kube, spec(model=source, suspend=True), suspended=True)
        own = pipeline(PIPELINE, revision(1))
        own["metadata"]["name"], own["spec"]["storage"] = "own", {"size": "1Gi"}
        kube.apply(own)
        eventually(lambda: kube.get("pvc", "own-store"), SECONDS, "the operator makes a claim")
    api_requests = read_requests([log], USER)
    assert not api_requests.refused, (tmp_path / "operator.log").read_text()[-3000:]
    assert len(api_requests.used) > 20


def operators_logs() -> list[Path]:
    """Of the devcluster, with what was rotated away."""
    folder = layout_at(default_root()).logs
    return list(folder.glob("audit*.log"))


def whole(session: pytest.Session) -> bool:
    """True when nothing was left out of this run."""
    here = Path(__file__).parent
    collected = {Path(item.path) for item in session.items}
    is_filtered = session.config.option.keyword or session.config.option.markexpr or session.testsfailed
    return not is_filtered and collected >= set(here.glob("test_*.py"))


@pytest.mark.timeout(HANDOVER_SECONDS + 60)
def test_nothing_is_granted_that_is_not_used_and_nothing_used_that_is_not_granted(
    request: pytest.FixtureRequest,
    log: Path,
    wait_for_canaries: Callable[[], None],
    record_property: Callable[[str, object], None],
) -> None:
    """All of it is compared only when the whole suite ran; otherwise there are uses that nobody saw."""
    wait_for_canaries()
    rights = granted(chart_roles())
    in_cluster, alone = read_requests(operators_logs(), OPERATOR), read_requests([log], USER)
    used = in_cluster.used | alone.used
    record_property("rights of the operator", table(rights, used))
    assert not in_cluster.refused | alone.refused
    assert _sorted(used - rights - EVERYBODY) == []
    if whole(request.session):
        assert in_cluster.used, "the devcluster's audit log holds nothing of the operator"
        assert _sorted(rights - used) == []


def _sorted(rights: Any) -> list[Right]:  # noqa: ANN401 - an iterable of rights
    return sorted(rights)
