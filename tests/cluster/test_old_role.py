"""A new operator with the role of an earlier chart works on, and says what is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from diffusion_operator import naming
from diffusion_operator.kube_client import connect
from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.operator_process import operator_process
from tests.support.cluster.pipelines import ready
from tests.support.operator.fleet import (
    ControllerClient,
    Fleet,
    claim,
    pipeline,
    revision,
    simulate_controllers,
)
from tests.support.paths import CRD
from tools.devcluster.bare import USER, ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = Fleet(1, 1)
PIPELINE = ONE.reference(0)
SECONDS = 120.0
RBAC = "rbac.authorization.k8s.io"
RULES = yaml.safe_load((Path(__file__).parent / "role-0.1.0.yaml").read_text())


def role(name: str, rules: list[Object]) -> list[Object]:
    """A ClusterRole with these rules, and its binding to the operator's user."""
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": reference,
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": USER}],
        },
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server(authorization="RBAC") as running:
        running.apply(CRD)
        yield running


@pytest.fixture(scope="module")
def kube(server: ApiServer) -> Kube:
    kube = Kube(server.environment, PIPELINE.namespace)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PIPELINE.namespace}})
    kube.apply(claim(PIPELINE.namespace), *role("lease", RULES["lease"]), *role("operator", RULES["cluster"]))
    return kube


def simulate(server: ApiServer) -> None:
    async def once() -> None:
        async with connect(str(server.kubeconfig)) as connection:
            await simulate_controllers(ControllerClient.of(connection), ONE)

    asyncio.run(once())


def test_with_the_role_of_the_previous_chart_pipelines_are_served_repaired_and_refused_with_reasons(
    server: ApiServer, kube: Kube, tmp_path: Path
) -> None:
    log = tmp_path / "operator.log"

    def is_ready() -> bool:
        simulate(server)
        return ready(kube, PIPELINE.name) is not None

    with operator_process(server, log, RESYNC_SECONDS=5, GATEWAY_IMAGE="g:1") as (process, _):
        kube.apply(pipeline(PIPELINE, revision(1)))
        eventually(is_ready, SECONDS, lambda: kube.run("describe", "dp") + log.read_text()[-3000:])
        text = log.read_text()
        assert "watch poddisruptionbudgets" in text
        assert "watch horizontalpodautoscalers" in text
        assert "list networkpolicies" in text
        assert "helm upgrade" in text
        budget = kube.list("poddisruptionbudgets", naming.MANAGED_SELECTOR)[0]["metadata"]["name"]
        kube.run("delete", "poddisruptionbudget", budget)
        # No event says so, but every look lists budgets.
        eventually(lambda: kube.get("poddisruptionbudget", budget), SECONDS, lambda: log.read_text()[-3000:])
        api = pipeline(PIPELINE, revision(1))
        api["spec"]["api"] = {"auth": {"type": "None"}}
        kube.apply(api)

        def accepted() -> Object:
            return condition(kube.get("dp", PIPELINE.name), "Accepted")

        eventually(lambda: accepted().get("status") == "False", SECONDS, lambda: log.read_text()[-3000:])
        assert "networkpolicies" in accepted()["message"]
        kube.apply(pipeline(PIPELINE, revision(1)))
        eventually(is_ready, SECONDS, lambda: kube.run("describe", "dp"))
        assert process.poll() is None
        assert "Traceback" not in log.read_text()


def test_a_role_without_what_every_pipeline_needs_is_named_and_the_operator_ends(
    server: ApiServer, kube: Kube, tmp_path: Path
) -> None:
    without_jobs = [rule for rule in RULES["cluster"] if rule["resources"] != ["jobs"]]
    kube.apply(*role("operator", without_jobs))
    log = tmp_path / "operator.log"
    with operator_process(server, log, IDENTITY="second") as (process, _):
        eventually(lambda: process.poll() is not None, SECONDS, "the process ends")
    text = log.read_text()
    assert "list jobs" in text
    assert "watch jobs" in text
    assert "helm upgrade" in text
    assert "Traceback" not in text
