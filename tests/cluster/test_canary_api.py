"""Canaries on a real API server alone: Jobs, pods and what pods say of themselves are played."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from diffusion_operator import naming
from diffusion_operator.kube_client import MERGE, Reference, connect
from diffusion_operator.metrics_scraper import MetricsScraper
from diffusion_operator.reconcile import PipelineKey, Reconciler
from diffusion_operator.settings import Settings
from tests.support.cluster.admission import with_schema
from tests.support.cluster.kube import Kube, Object, condition
from tests.support.operator.fleet import ControllerClient, claim, pipeline, revision, simulate_controllers
from tests.support.operator.fleet import Fleet as Pipelines
from tests.support.paths import CRD
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = Settings("b:1", "s:1", tensorrt_builder_image="trt:1", tensorrt_serving_image="trts:1")
ONE = Pipelines(1, 1)
PIPELINE = ONE.reference(0)
A100 = "NVIDIA-A100-SXM4-80GB"
TARGETS = [{"name": "l4", "gpu": {"product": "NVIDIA-L4"}}, {"name": "a100", "gpu": {"product": A100}}]
STEPS = [{"weight": 50, "pause": "1s"}]
ANALYSIS = {"interval": "1s", "deadline": "10m", "minRequests": 20}
SECONDS = 180.0
FAILED = {
    "error": {"reason": "CompileFailed", "message": "layer conv_in: no implementation"},
    "exitCode": 64,
    "ended": "Error",
}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.apply(CRD)
        yield running


@pytest.fixture
def kube(server: ApiServer) -> Iterator[Kube]:
    """An empty namespace with a store, with kubectl."""
    with_schema(Kube(server.environment, "default"))
    namespaced_kube = Kube(server.environment, PIPELINE.namespace)
    namespaced_kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespaced_kube.namespace}})
    namespaced_kube.apply(claim(namespaced_kube.namespace))
    yield namespaced_kube
    for kind in ("dp", "jobs", "deployments", "services", "pods"):
        namespaced_kube.run("delete", kind, "--all", "--wait=false", "--grace-period=0", "--force")


class Servers:
    """The metrics of all pods on one port of this machine: 127.0.0.N is the pod with the number N."""

    def __init__(self) -> None:
        self.answered = 0
        servers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = servers.text().encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
                """Nobody reads it."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def text(self) -> str:
        """As Triton tells it; with every reading a hundred more requests were answered."""
        self.answered += 100
        ensemble, step = 'model="generate_20_pipeline",version="1"', 'model="5_denoiser",version="1"'
        quantiles = (f'nv_inference_request_summary_us{{{ensemble},quantile="{q}"}} 900000\n' for q in ("0.5", "0.95"))
        return "".join(
            (
                f"nv_inference_request_success{{{ensemble}}} {self.answered}\n",
                f"nv_inference_request_duration_us{{{ensemble}}} {self.answered * 1_000_000}\n",
                *quantiles,
                f"nv_inference_request_success{{{step}}} {self.answered * 20}\n",
                f"nv_inference_compute_infer_duration_us{{{step}}} {self.answered * 20 * 40_000}\n",
                f"nv_inference_count{{{step}}} {self.answered * 20}\n",
                f"nv_inference_exec_count{{{step}}} {self.answered * 20}\n",
            )
        )

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def metrics() -> Iterator[Servers]:
    servers = Servers()
    try:
        yield servers
    finally:
        servers.stop()


def want(kube: Kube, image: str, model: int = 1, **rollout: object) -> None:
    document = pipeline(PIPELINE, revision(model))
    rollout = {"steps": STEPS, "analysis": ANALYSIS, **rollout}
    spec = {"serving": {"image": image}, "rollout": rollout, "targets": rollout.pop("targets", [{"name": "cpu"}])}
    kube.apply(document | {"spec": document["spec"] | spec})


async def fail(client: ControllerClient, sku: str) -> None:
    """Every unfinished compile Job of this product ends as the builder ends for bad input."""
    selector = f"{naming.MANAGED_SELECTOR},{naming.STAGE}=compile"
    for job in await client.select(Reference("Job", PIPELINE.namespace), selector):
        if job["metadata"]["labels"].get(naming.TARGET) != sku or job.get("status", {}).get("conditions"):
            continue
        place = Reference("Job", PIPELINE.namespace, job["metadata"]["name"])
        await client.patch(place, {"metadata": {"annotations": {naming.RESULT: json.dumps(FAILED)}}}, MERGE)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ended = {"status": "True", "lastTransitionTime": now, "reason": "PodFailurePolicy", "message": ""}
        conditions = [{"type": kind, **ended} for kind in ("FailureTarget", "Failed")]
        await client.patch_status(place, {"startTime": now, "failed": 1, "conditions": conditions})


def simulate(
    server: ApiServer, kube: Kube, until: Callable[[], bool], scraper: MetricsScraper | None = None, broken: str = ""
) -> None:
    """Passes, and controllers that let Jobs succeed and pods start, until something is so."""

    async def go() -> None:
        async with connect(str(server.user_kubeconfig)) as connection:
            client, end = ControllerClient.of(connection), time.monotonic() + SECONDS
            reconciler = Reconciler(client, SETTINGS, scraper=scraper)
            while not until():
                assert time.monotonic() < end, kube.run("describe", "dp")
                await reconciler.reconcile(PipelineKey(PIPELINE.namespace, PIPELINE.name))
                if broken:
                    await fail(client, broken)
                await simulate_controllers(client, ONE)
                play_pods(kube)

    asyncio.run(go())


def play_pods(kube: Kube) -> None:
    """The pods of every Deployment that is to have some, each ready and at an address of its own."""
    deployments = {item["metadata"]["name"]: item for item in kube.list("deployments") if item["spec"]["replicas"]}
    there = {item["metadata"]["name"] for item in kube.list("pods")}
    for name in there - set(deployments):
        kube.run("delete", "pod", name, "--grace-period=0", "--force")
    for name in set(deployments) - there:
        template = deployments[name]["spec"]["template"]
        head = {"name": name, "labels": template["metadata"]["labels"]}
        kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": template["spec"]})
        ready = {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [ready]}
        kube.run("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def live_pipeline(kube: Kube) -> Object:
    return kube.get("dp", PIPELINE.name) or {}


def says(kube: Kube, kind: str, reason: str) -> Callable[[], bool]:
    """The condition has this reason for the generation of now."""

    def check() -> bool:
        state = condition(live_pipeline(kube), kind)
        return (state.get("reason"), state.get("observedGeneration")) == (
            reason,
            live_pipeline(kube)["metadata"]["generation"],
        )

    return check


def stable(kube: Kube) -> dict[str, str]:
    """Each target's stable revision, as live traffic says."""
    services = kube.list("services", naming.TARGET)
    annotations_by_service = {one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in services}
    return {
        name: annotations[naming.STABLE]
        for name, annotations in annotations_by_service.items()
        if naming.STABLE in annotations
    }


def scales(kube: Kube) -> dict[str, int]:
    return {item["metadata"]["name"]: item["spec"]["replicas"] for item in kube.list("deployments")}


def test_what_does_not_compile_on_one_of_two_gpu_products_starts_on_neither(server: ApiServer, kube: Kube) -> None:
    ready = says(kube, "Ready", "Ready")
    want(kube, "s:1", targets=TARGETS)
    simulate(server, kube, ready)
    before, pods = stable(kube), scales(kube)
    assert len(before) == 2
    want(kube, "s:1", 2, targets=TARGETS)
    simulate(server, kube, says(kube, "EnginesReady", "CompileFailed"), broken=A100)
    # The other product's engines and repository get finished meanwhile; still nothing starts.
    for _ in range(4):
        simulate(server, kube, iter([False, True]).__next__, broken=A100)
    state = condition(live_pipeline(kube), "EnginesReady")
    assert A100 in state["message"]
    assert "no implementation" in state["message"]
    assert (stable(kube), scales(kube)) == (before, pods)
    assert condition(live_pipeline(kube), "Available")["status"] == "True"
    want(kube, "s:1", 3, targets=TARGETS)
    with metrics() as servers:
        simulate(server, kube, ready, MetricsScraper(servers.port))
    assert not set(stable(kube).values()) & set(before.values())


def test_while_no_metrics_come_a_canary_is_held_and_at_the_deadline_taken_back(server: ApiServer, kube: Kube) -> None:
    ready = says(kube, "Ready", "Ready")
    want(kube, "s:1")
    simulate(server, kube, ready)
    before = stable(kube)
    with metrics() as servers:
        port = servers.port
    want(kube, "s:2")
    simulate(
        server,
        kube,
        lambda: "did not report their metrics" in str(live_pipeline(kube).get("status")),
        MetricsScraper(port),
    )
    assert stable(kube) == before
    assert live_pipeline(kube)["status"]["summary"]["canary"] == "50% Inconclusive"
    want(kube, "s:2", analysis={**ANALYSIS, "deadline": "1s"})
    simulate(server, kube, says(kube, "RolloutComplete", "CanaryRejected"), MetricsScraper(port))
    assert "Inconclusive: No verdict within 1 seconds" in condition(live_pipeline(kube), "RolloutComplete")["message"]
    assert stable(kube) == before
    simulate(server, kube, lambda: sorted(scales(kube).values()) == [0, 1], MetricsScraper(port))
    want(kube, "s:3")
    with metrics() as servers:
        simulate(server, kube, ready, MetricsScraper(servers.port))
    assert stable(kube) != before
