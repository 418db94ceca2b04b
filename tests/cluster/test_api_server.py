"""What only needs a real API server: the election, autoscaling rules, and handing over the number of pods."""

from __future__ import annotations

import asyncio
import signal
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_operator import naming
from diffusion_operator.kube_client import MERGE, Reference, connect
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.cluster.admission import answer, with_schema
from tests.support.cluster.definitions import serve_foreign_apis
from tests.support.cluster.kube import Kube, Object, eventually
from tests.support.cluster.operator_process import operator_process
from tests.support.operator.canaries import GOOD, FakeScraper
from tests.support.operator.fleet import ControllerClient, claim, pipeline, revision, simulate_controllers
from tests.support.operator.fleet import Fleet as Pipelines
from tests.support.paths import CRD
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

SETTINGS = Settings("b:1", "s:1")
# 15 seconds until a dead leader's Lease is free, and time to start on a busy machine.
TAKEOVER_SECONDS = 180.0
PIPELINE = Pipelines(1, 1).reference(0)


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.apply(CRD)
        yield running


@pytest.fixture(scope="module")
def kube(server: ApiServer) -> Kube:
    return with_schema(Kube(server.environment, "default"))


def leads(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            return "diffusion_operator_leader 1.0" in response.read().decode()
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["told to stop", "killed"])
def test_of_two_operators_one_works_and_the_other_takes_over(
    server: ApiServer, kube: Kube, tmp_path: Path, how: signal.Signals
) -> None:
    kube.delete("lease", naming.MANAGER)
    with (
        operator_process(server, tmp_path / "first", IDENTITY="first") as (first, first_port),
        operator_process(server, tmp_path / "second", IDENTITY="second") as (second, second_port),
    ):
        ports = {first: first_port, second: second_port}
        [leader] = eventually(
            lambda: [process for process, port in ports.items() if leads(port)], TAKEOVER_SECONDS, "one leads"
        )
        [standby] = set(ports) - {leader}
        assert not leads(ports[standby])
        name = f"after-{how.name.lower()}"
        leader.send_signal(how)
        eventually(lambda: leads(ports[standby]), TAKEOVER_SECONDS, "the other one leads")
        leader.wait(120)
        assert leader.returncode == (0 if how == signal.SIGTERM else -how)
        kube.apply(pipeline(Reference("DiffusionPipeline", "default", name), revision(1)))
        claim_missing = eventually(
            lambda: (kube.get("diffusionpipelines", name) or {}).get("status"), 120, "the other one works"
        )
        assert claim_missing["conditions"]
        kube.delete("diffusionpipelines", name)


AUTOSCALING: dict[str, tuple[Object, str]] = {
    "minReplicas above maxReplicas": ({"minReplicas": 3, "maxReplicas": 2}, "must not be larger"),
    "zero pods with a HorizontalPodAutoscaler": ({"minReplicas": 0, "maxReplicas": 2}, "minReplicas 0 needs"),
    "zero pods without a signal": (
        {"minReplicas": 0, "maxReplicas": 2, "provider": "keda", "keda": {"serverAddress": "http://p:9090"}},
        "activationQuery",
    ),
    "keda without an address": ({"maxReplicas": 2, "provider": "keda"}, "provider keda needs"),
    "an address without keda": ({"maxReplicas": 2, "keda": {"serverAddress": "http://p:9090"}}, "provider keda needs"),
}


@pytest.mark.parametrize("case", AUTOSCALING)
def test_autoscaling_that_cannot_work_is_refused_with_the_reason(kube: Kube, case: str) -> None:
    autoscaling, message = AUTOSCALING[case]
    document = pipeline(Reference("DiffusionPipeline", "default", "wrong"), revision(1))
    document["spec"]["targets"] = [{"name": "cpu", "autoscaling": autoscaling}]
    assert message in answer(kube, document)


def run(
    server: ApiServer, scene: Callable[[ControllerClient, Reconciler], Awaitable[Any]], settings: Settings = SETTINGS
) -> None:
    """Let something happen against the API server."""

    async def go() -> None:
        async with connect(str(server.user_kubeconfig)) as connection:
            client = ControllerClient.of(connection)
            await scene(client, Reconciler(client, settings))

    asyncio.run(go())


async def settle(client: ControllerClient, reconciler: Reconciler) -> None:
    """Passes and controllers until nobody has anything to do."""
    for _ in range(30):
        await reconciler.reconcile(PipelineKey(PIPELINE.namespace, PIPELINE.name))
        if not await simulate_controllers(client, Pipelines(1, 1)):
            break
    await reconciler.reconcile(PipelineKey(PIPELINE.namespace, PIPELINE.name))


def job_names(kube: Kube) -> set[str]:
    return {item["metadata"]["name"] for item in kube.list("jobs")}


async def replicas(client: ControllerClient) -> list[int]:
    deployments = await client.select(Reference("Deployment", PIPELINE.namespace), naming.MANAGED_SELECTOR)
    return [item["spec"]["replicas"] for item in deployments]


def test_the_number_of_pods_survives_every_change_of_hands(server: ApiServer, kube: Kube) -> None:
    """A server-side apply that leaves out a field which it applied before would set it back to its default."""
    namespaced_kube = Kube(kube.environment, PIPELINE.namespace)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PIPELINE.namespace}})
    namespaced_kube.apply(claim(namespaced_kube.namespace))
    document = pipeline(PIPELINE, revision(1))
    automatic = {"name": "cpu", "autoscaling": {"minReplicas": 2, "maxReplicas": 6}}

    async def scene(client: ControllerClient, reconciler: Reconciler) -> None:
        namespaced_kube.apply(document | {"spec": document["spec"] | {"targets": [{"name": "cpu", "replicas": 4}]}})
        await settle(client, reconciler)
        assert await replicas(client) == [4]
        namespaced_kube.apply(document | {"spec": document["spec"] | {"targets": [automatic]}})
        await settle(client, reconciler)
        assert await replicas(client) == [4]
        [deployment] = await client.select(Reference("Deployment", PIPELINE.namespace), naming.MANAGED_SELECTOR)
        target = Reference("Deployment", PIPELINE.namespace, deployment["metadata"]["name"])
        await client.patch(target, {"spec": {"replicas": 6}}, MERGE)  # as the autoscaler does
        await settle(client, reconciler)
        assert await replicas(client) == [6]
        namespaced_kube.apply(document | {"spec": document["spec"] | {"targets": [{"name": "cpu", "replicas": 3}]}})
        await settle(client, reconciler)
        assert await replicas(client) == [3]

    run(server, scene)
    assert namespaced_kube.get("poddisruptionbudget", f"{PIPELINE.name}-cpu") is not None
    assert namespaced_kube.get("horizontalpodautoscaler", f"{PIPELINE.name}-cpu") is None


def test_a_cluster_without_keda_is_told_apart_from_a_broken_one(server: ApiServer, kube: Kube) -> None:
    keda = {"serverAddress": "http://prometheus:9090"}
    automatic = {"name": "cpu", "autoscaling": {"maxReplicas": 6, "provider": "keda", "keda": keda}}
    document = pipeline(PIPELINE, revision(1))
    namespaced_kube = Kube(kube.environment, PIPELINE.namespace)
    namespaced_kube.apply(document | {"spec": document["spec"] | {"targets": [automatic]}})
    run(server, settle)
    conditions = (namespaced_kube.get("diffusionpipelines", PIPELINE.name) or {})["status"]["conditions"]
    by_type = {item["type"]: item for item in conditions}
    assert "KEDA is not installed" in by_type["Accepted"]["message"]
    assert by_type["Available"]["status"] == "True"


def test_a_canary_goes_on_under_new_operators_and_without_a_status(server: ApiServer, kube: Kube) -> None:
    """Its notes and shares outlive server-side applies, and going back needs no Job."""
    namespaced_kube = Kube(kube.environment, PIPELINE.namespace)
    document = pipeline(PIPELINE, revision(1))
    steps = [{"weight": 10, "pause": "1s"}, {"weight": 50, "pause": "1s"}]

    def desired_pipeline(image: str, **rollout: object) -> Object:
        rollout = {"steps": steps, **rollout}
        return document | {"spec": document["spec"] | {"serving": {"image": image}, "rollout": rollout}}

    async def stable(client: ControllerClient) -> str:
        service = await client.get(Reference("Service", PIPELINE.namespace, f"{PIPELINE.name}-cpu"))
        return str((service or {"metadata": {}})["metadata"].get("annotations", {}).get(naming.STABLE))

    async def simulate(client: ControllerClient, before: str) -> set[int]:
        weights, deadline = set(), time.monotonic() + 120
        while await stable(client) == before:
            assert time.monotonic() < deadline, "the canary is not promoted"
            await Reconciler(client, SETTINGS, scraper=FakeScraper(GOOD)).reconcile(
                PipelineKey(PIPELINE.namespace, PIPELINE.name)
            )
            await simulate_controllers(client, Pipelines(1, 1))
            live_pipeline = await client.get(Reference("DiffusionPipeline", PIPELINE.namespace, PIPELINE.name)) or {}
            weights.add(live_pipeline["status"]["targets"][0].get("canaryWeight", 0))
            await client.write_status(PIPELINE, {"conditions": []})
        return weights

    async def scene(client: ControllerClient, reconciler: Reconciler) -> None:
        namespaced_kube.apply(desired_pipeline("s:1"))
        await settle(client, reconciler)
        first = await stable(client)
        namespaced_kube.apply(desired_pipeline("s:2"))
        assert await simulate(client, first) >= {0, 10, 50}
        await settle(client, reconciler)
        second, jobs = await stable(client), job_names(namespaced_kube)
        assert sorted(await replicas(client)) == [0, 1]
        namespaced_kube.apply(desired_pipeline("s:2", rollbackTo=first))
        assert await simulate(client, second) == {0}
        assert job_names(namespaced_kube) <= jobs

    run(server, scene)


def test_nothing_is_written_while_nothing_happens(server: ApiServer, kube: Kube) -> None:
    namespaced_kube = Kube(kube.environment, PIPELINE.namespace)
    namespaced_kube.apply(pipeline(PIPELINE, revision(1)))
    run(server, settle)

    def versions() -> set[str]:
        kinds = "diffusionpipelines,jobs,deployments,services,poddisruptionbudgets,events"
        line = "{.kind}/{.metadata.name}={.metadata.resourceVersion} "
        names = namespaced_kube.run("get", kinds, "-o", f"jsonpath={{range .items[*]}}{line}{{end}}")
        return set(names.split())

    before = versions()
    run(server, settle)
    assert len(before) > 10
    assert versions() == before
    # Nor by the next release, whose builder is another image.
    run(server, settle, replace(SETTINGS, builder_image="b:2", resync_seconds=299))
    assert versions() == before


def shares(namespaced_kube: Kube, kind: str) -> dict[str, int]:
    """Percentages by revision, as the route says."""
    route = namespaced_kube.get(kind, PIPELINE.name) or {"spec": {"rules": [{"backendRefs": []}]}}
    return {ref["name"].rsplit("-", 1)[1]: ref["weight"] for ref in route["spec"]["rules"][-1]["backendRefs"]}


def test_an_experiment_lives_through_changes_of_hands_and_leaves_nothing_behind(server: ApiServer, kube: Kube) -> None:
    """Every pass is made by a new operator, without a status: who has which share is read off the routes."""
    namespaced_kube = Kube(kube.environment, PIPELINE.namespace)
    serve_foreign_apis(kube)
    denoiser = {"source": {"huggingFace": {"repo": "demo/fast", "revision": revision(2)}}}
    fast = {"name": "fast", "weight": 30, "model": {"components": {"denoiser": denoiser}}}
    other = {"name": "other", "weight": 10, "serving": {"image": "s:8"}}

    def desired_pipeline(*variants: Object) -> Object:
        rollout: Object = {"strategy": "RollingUpdate", "traffic": {"gateway": {"name": "web"}}}
        rollout |= {"experiment": {"variants": list(variants)}} if variants else {}
        document = pipeline(PIPELINE, revision(1))
        return document | {"spec": document["spec"] | {"serving": {"image": "s:7"}, "rollout": rollout}}

    async def until(client: ControllerClient, weights: list[int]) -> None:
        deadline = time.monotonic() + 120
        while sorted(shares(namespaced_kube, "httproute").values()) != weights:
            assert time.monotonic() < deadline, shares(namespaced_kube, "httproute")
            await Reconciler(client, SETTINGS, scraper=FakeScraper(GOOD)).reconcile(
                PipelineKey(PIPELINE.namespace, PIPELINE.name)
            )
            http_shares = shares(namespaced_kube, "httproute")
            ready = {
                item["metadata"]["name"].rsplit("-", 1)[1]
                for item in namespaced_kube.list("deployments")
                if item.get("status", {}).get("readyReplicas")
            }
            assert sum(http_shares.values()) == 100
            assert set(http_shares) <= ready
            assert shares(namespaced_kube, "grpcroute") == http_shares
            await simulate_controllers(client, Pipelines(1, 1))
            await client.write_status(PIPELINE, {"conditions": []})

    async def scene(client: ControllerClient, reconciler: Reconciler) -> None:
        namespaced_kube.apply(desired_pipeline())
        await settle(client, reconciler)
        [first], jobs, pods = shares(namespaced_kube, "httproute"), job_names(namespaced_kube), await replicas(client)
        namespaced_kube.apply(desired_pipeline(fast, other))
        await until(client, [10, 30, 60])
        assert shares(namespaced_kube, "httproute")[first] == 60
        new = sorted(name.split("-")[0] for name in job_names(namespaced_kube) - jobs)
        assert new == ["assemble", "compile", "export", "fetch", "parity"]
        namespaced_kube.apply(desired_pipeline(other))
        await until(client, [10, 90])
        namespaced_kube.apply(desired_pipeline())
        await settle(client, reconciler)
        assert shares(namespaced_kube, "httproute") == {first: 100}
        assert await replicas(client) == pods
        assert job_names(namespaced_kube) == jobs

    run(server, scene)
