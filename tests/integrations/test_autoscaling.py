"""A real KEDA and a real Prometheus: load makes pods, silence takes them. The tests share one pipeline, in order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.cluster.kube import Kube, Object, condition, eventually
from tests.support.cluster.pipelines import describe_namespace, example, wait_ready
from tests.support.integrations.keda import keda
from tests.support.integrations.load import REQUESTS_METRIC, Front, clients, front
from tests.support.integrations.prometheus import Prometheus, prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST = 2
# Of 16 people who ask a pod that takes 8 at a time 8 wait; above 2 a pod there have to be more pods.
PEOPLE, PENDING = 16, 2
# Cold pods on a busy machine.
SECONDS = 300.0
ROUTING_SECONDS = 30.0


@dataclass(frozen=True)
class Scaled:
    """A served pipeline that KEDA scales.

    Attributes:
        front: whom the clients ask through.
        url: host:port of the pipeline's Service.
    """

    kube: Kube
    front: Front
    prometheus: Prometheus
    url: str

    @property
    def deployment(self) -> Object:
        """The only Deployment."""
        (server_deployment,) = self.kube.list("deployments")
        return server_deployment

    def wait_pods(self, count: int) -> None:
        """Wait until so many pods are wanted, and all of them and no others answer."""

        def there() -> bool:
            state = self.deployment
            # Pods on their way out still answer where there are no others.
            pods = len(self.kube.list("pods", "diffusion-operator.io/revision"))
            return (state["spec"]["replicas"], state["status"].get("readyReplicas", 0), pods) == (count, count, count)

        eventually(there, SECONDS, lambda: f"{count} pods\n{self.signals()}\n{describe_namespace(self.kube)}")

    def signals(self) -> str:
        """What the autoscaler sees, for the message of a failed test."""
        queries = [
            trigger["metadata"]["query"]
            for scaler in self.kube.list("scaledobjects")
            for trigger in scaler["spec"]["triggers"]
        ]
        values = {query: self.prometheus.query(query) for query in queries}
        return f"{values}\n{self.kube.run('get', 'hpa,scaledobject', '-o', 'yaml')}"

    def patch(self, **target: object) -> None:
        """Change fields of the only target."""
        spec = {"targets": [{"name": "cpu", **target}]}
        self.kube.run("patch", "dp", "shapes", "--type=merge", "-p", json.dumps({"spec": spec}))


def scaling(address: str, fewest: int) -> Object:
    """spec.targets[].autoscaling, quick enough for a test."""
    calm = {"stabilizationWindowSeconds": 15}
    asks = f"sum(rate({REQUESTS_METRIC}[10s]))"
    quick = {"activationQuery": asks, "pollingIntervalSeconds": 2, "cooldownPeriodSeconds": 10}
    return {
        "minReplicas": fewest,
        "maxReplicas": MOST,
        "pendingStepsPerReplica": PENDING,
        "provider": "keda",
        "keda": {"serverAddress": address, **quick},
        "behavior": {"scaleDown": calm},
    }


@pytest.fixture(scope="module")
def scaled(shared_namespace: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    """examples/pipeline.yaml with one to two pods."""
    kube, folder = shared_namespace, tmp_path_factory.mktemp("keda")
    with front() as counter, prometheus(kube, folder, counter.address) as metrics, keda(kube, folder):
        target = {"name": "cpu", "autoscaling": scaling(metrics.url, fewest=1)}
        kube.apply(example(targets=[target]))
        wait_ready(kube)
        service = kube.get("service", "shapes")
        assert service is not None
        url = f"{service['spec']['clusterIP']}:8000"
        # kube-proxy looks at most once a second, so that a Service answers up to that much later than its pod is ready.
        counter.seconds_to_first_image(url, ROUTING_SECONDS)
        yield Scaled(kube, counter, metrics, url)
        # While KEDA runs, which has to let go of its object.
        kube.delete("dp", "shapes")
        eventually(
            lambda: not kube.list("scaledobjects") and not kube.list("hpa"), 60, lambda: describe_namespace(kube)
        )


def test_keda_takes_the_object_that_the_operator_renders(scaled: Scaled) -> None:
    eventually(
        lambda: condition(scaled.kube.get("scaledobject", "shapes-cpu"), "Ready").get("status") == "True",
        60,
        lambda: scaled.kube.run("get", "scaledobject", "-o", "yaml"),
    )
    (hpa,) = scaled.kube.list("hpa")
    assert hpa["spec"]["scaleTargetRef"]["name"] == scaled.deployment["metadata"]["name"]
    assert hpa["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 15


def test_load_makes_more_pods_and_calm_fewer_and_no_request_is_lost(scaled: Scaled) -> None:
    scaled.wait_pods(1)
    lost = len(scaled.front.lost)
    with clients(PEOPLE, lambda: scaled.front.ask(scaled.url)):
        scaled.wait_pods(MOST)
    with clients(1, lambda: scaled.front.ask(scaled.url)):
        scaled.wait_pods(1)
    unanswered = scaled.front.lost[lost:]
    assert unanswered == [], f"{len(unanswered)} requests, from {unanswered[0]} to {unanswered[-1]}"
    wait_ready(scaled.kube, deadline=60)


def test_the_autoscaler_follows_the_traffic_to_the_next_revision(scaled: Scaled) -> None:
    before = scaled.deployment["metadata"]["name"]
    scaled.kube.run("patch", "dp", "shapes", "--type=merge", "-p", '{"spec":{"scheduler":{"type":"Euler"}}}')
    wait_ready(scaled.kube, deadline=SECONDS)
    eventually(lambda: len(scaled.kube.list("deployments")) == 1, SECONDS, lambda: describe_namespace(scaled.kube))
    after = scaled.deployment["metadata"]["name"]
    assert after != before

    def followed() -> bool:
        (hpa,) = scaled.kube.list("hpa")
        return bool(hpa["spec"]["scaleTargetRef"]["name"] == after)

    eventually(followed, 60, scaled.signals)


def test_nobody_asks_so_no_pod_runs_and_the_first_request_brings_one_back(
    scaled: Scaled, record_testsuite_property: Callable[[str, object], None]
) -> None:
    scaled.patch(autoscaling=scaling(scaled.prometheus.url, fewest=0))
    scaled.wait_pods(0)
    state = wait_ready(scaled.kube, deadline=60)
    assert "zero" in condition(state, "Available")["message"]
    seconds = scaled.front.seconds_to_first_image(scaled.url, SECONDS)
    record_testsuite_property("cold_start_seconds", round(seconds, 1))
    scaled.wait_pods(1)
    scaled.wait_pods(0)


def test_a_suspended_pipeline_has_no_autoscaler_and_no_pods_whoever_asks(scaled: Scaled) -> None:
    def patch_suspend(value: str) -> None:
        scaled.kube.run("patch", "dp", "shapes", "--type=merge", "-p", f'{{"spec":{{"suspend":{value}}}}}')

    patch_suspend("true")
    eventually(lambda: not scaled.kube.list("scaledobjects"), 60, lambda: describe_namespace(scaled.kube))
    eventually(lambda: not scaled.kube.list("hpa"), 60, lambda: describe_namespace(scaled.kube))
    scaled.wait_pods(0)
    assert scaled.front.ask(scaled.url, steps=4) is None
    patch_suspend("false")
    scaled.front.seconds_to_first_image(scaled.url, SECONDS)
