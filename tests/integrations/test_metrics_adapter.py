"""The Prometheus adapter with the rule of the documentation, and the HorizontalPodAutoscaler of the operator.

Adapter, Prometheus, API server and the controller of HorizontalPodAutoscalers are real; the pod exists on paper, and
what it exports is a page of Triton's with a queue that the test decides.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from diffusion_contract.spec.autoscaling import Autoscaling
from diffusion_operator import naming
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.policies import PODS_METRIC, autoscaler
from tests.support.cluster.control_plane import component
from tests.support.cluster.kube import Kube, KubectlError, Object, condition, eventually
from tests.support.integrations.metrics_adapter import API, metrics_adapter
from tests.support.integrations.pages import metrics_pages
from tests.support.integrations.prometheus import running_prometheus
from tests.support.paths import ROOT
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE, POD = "default", "shapes-cpu-a1-x"
LABELS = {"app": "shapes"}
OWNER = Owner("shapes", NAMESPACE, "11111111-2222-3333-4444-555555555555")
DEPLOYMENT = naming.revision_name("shapes", "cpu", "a1")
SECONDS = 120.0


@dataclass
class Queue:
    """How many denoiser steps the server says that wait."""

    steps: int = 0

    def page(self) -> str:
        """What Triton exports about it."""
        series = "nv_inference_pending_request_count"
        models = {"5_denoiser": self.steps, "generate_4_pipeline": 1000}
        lines = [f'{series}{{model="{name}",version="1"}} {count}' for name, count in models.items()]
        return "\n".join([f"# TYPE {series} gauge", *lines]) + "\n"


@dataclass(frozen=True)
class Scaled:
    """A Deployment that the operator's HorizontalPodAutoscaler scales."""

    kube: Kube
    queue: Queue

    def metrics(self) -> dict[str, str]:
        """Pod → waiting steps, as the API server has it from the adapter; empty before it knows the metric."""
        path = f"/apis/{API}/v1beta2/namespaces/{NAMESPACE}/pods/*/{PODS_METRIC}"
        try:
            listed = json.loads(self.kube.run("get", "--raw", path))
        except KubectlError as error:
            if "could not find the metric" not in str(error):
                raise
            return {}
        return {item["describedObject"]["name"]: item["value"] for item in listed["items"]}

    def replicas(self) -> int:
        """How many pods are to run."""
        deployment = self.kube.get("deployment", DEPLOYMENT)
        assert deployment is not None
        return int(deployment["spec"]["replicas"])

    def state(self) -> str:
        """For the message of a failed test."""
        return self.kube.run("get", "hpa,deployments,pods", "-o", "yaml")


def documented_rules() -> dict[str, Any]:
    """The adapter's configuration in docs/autoscaling.md."""
    blocks = (ROOT / "docs" / "autoscaling.md").read_text().split("```yaml\n")[1:]
    (text,) = [block.split("```")[0] for block in blocks if "\nrules:" in block]
    rules: dict[str, Any] = yaml.safe_load(text)
    return rules


def objects() -> list[Object]:
    """A Deployment with one pod, and the operator's autoscaler for it."""
    container = {"name": "triton", "image": "triton:1"}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT},
        "spec": {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "labels": LABELS}, "spec": template["spec"]}
    scaling = Autoscaling.model_validate({"maxReplicas": 4, "pendingStepsPerReplica": 8, "provider": "hpa"})
    return [deployment, pod, autoscaler(OWNER, "cpu", "a1", scaling)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    log = tmp_path_factory.mktemp("controllers") / "log"
    options = ("--controllers=horizontal-pod-autoscaler-controller", "--horizontal-pod-autoscaler-sync-period=1s")
    with api_server() as running_server, component(running_server, "kube-controller-manager", log, *options):
        yield running_server


@pytest.fixture(scope="module")
def scaled(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    folder, queue, kube = tmp_path_factory.mktemp("adapter"), Queue(), Kube(server.environment, NAMESPACE)
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(documented_rules()))
    labels = {"namespace": NAMESPACE, "pod": POD}
    with (
        metrics_pages({"/metrics": queue.page}) as target,
        running_prometheus(
            folder, [{"job_name": "pipelines", "static_configs": [{"targets": [target], "labels": labels}]}]
        ) as prometheus,
        metrics_adapter(server, rules, prometheus.url, folder),
    ):
        kube.apply(*objects())
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        kube.run("patch", "pod", POD, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        yield Scaled(kube, queue)


def test_the_adapter_has_the_number_of_waiting_denoiser_steps_for_each_pod(scaled: Scaled) -> None:
    eventually(lambda: scaled.metrics() == {POD: "0"}, SECONDS, lambda: str(scaled.metrics()))


def test_the_autoscaler_reads_it_and_makes_as_many_pods_as_the_queue_needs(scaled: Scaled) -> None:
    def active() -> bool:
        hpa = scaled.kube.get("hpa", naming.target_service_name("shapes", "cpu"))
        return condition(hpa, "ScalingActive").get("status") == "True"

    eventually(active, SECONDS, scaled.state)
    assert scaled.replicas() == 1
    # Three pods' worth; the rule takes the mean of a minute, which rises to it.
    scaled.queue.steps = 24
    eventually(lambda: scaled.replicas() == 3, SECONDS, scaled.state)
