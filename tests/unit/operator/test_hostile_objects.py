"""Objects of others: whatever stands in a field, or is missing, a view is made and says something sensible."""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from diffusion_operator import naming
from diffusion_operator.json_objects import parse_json_object
from diffusion_operator.plan.dropped_fields import LAST_APPLIED
from diffusion_operator.views.base import ObjectView, parse_object, parse_time
from diffusion_operator.views.job import JobView, lacks_pods, needs_pods
from diffusion_operator.views.pod import JOB_NAME, PodView
from diffusion_operator.views.pod_problem import pod_problem
from diffusion_operator.views.result import checked_result
from diffusion_operator.views.serving import DeploymentView, RouteView, ServiceView
from diffusion_operator.views.storage import ClaimView, PipelineView
from tests.support.operator.fake_cluster import FakeCluster, minimal_spec
from tests.support.operator.reconciling import reconcile, settle

TIME = "2026-01-01T00:00:00Z"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
DIGEST = "d" * 64
DEEP = "[" * 4096
VALUES: tuple[Any, ...] = (
    None,
    "",
    "x",
    "none",
    "-1",
    "²",
    "9" * 5000,
    DEEP,
    "\ud800\x00",
    3,
    -3,
    10**30,
    0.5,
    True,
    [],
    [None],
    ["x"],
    {},
    {"a": None},
)
CONDITION = {"type": "Ready", "status": "False", "reason": "R", "message": "m", "lastTransitionTime": TIME}
HEAD = {
    "name": "a",
    "namespace": "studio",
    "uid": "1",
    "resourceVersion": "1",
    "generation": 1,
    "creationTimestamp": TIME,
    "ownerReferences": [{"uid": "2", "kind": "Job", "name": "a"}],
    "labels": {JOB_NAME: "a", naming.TARGET: "cpu", naming.REVISION: "01234567", naming.STAGE: "export"},
    "annotations": {
        naming.ATTEMPT: "2",
        naming.STABLE: "01234567",
        naming.CANARY: "89abcdef=10",
        naming.SIBLINGS: '{"cpu":"01234567"}',
        naming.ROLLOUT: json.dumps({"phase": "Step", "step": 1, "since": TIME, "verdict": None}),
        LAST_APPLIED: "{}",
    },
}
ENDED = {"exitCode": 137, "reason": "OOMKilled", "message": '{"digest":"d"}', "finishedAt": TIME}
POD = {
    "metadata": HEAD,
    "spec": {
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
        "containers": [{"name": "build", "resources": {"limits": {"nvidia.com/gpu": "1"}}}, {"name": "istio-proxy"}],
        "initContainers": [{"name": "mesh", "restartPolicy": "Always"}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "l4"}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "s"}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "c"}},
        ],
    },
    "status": {
        "phase": "Pending",
        "reason": "r",
        "message": "m",
        "podIP": "10.0.0.1",
        "startTime": TIME,
        "conditions": [CONDITION, {**CONDITION, "type": "PodScheduled", "message": "0/1 nodes are available: 1 x."}],
        "initContainerStatuses": [{"name": "mesh", "image": "i", "state": {"running": {"startedAt": TIME}}}],
        "containerStatuses": [
            {"name": "build", "image": "i", "ready": False, "state": {"terminated": ENDED}, "lastState": {}},
            {
                "name": "istio-proxy",
                "image": "i",
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "m"}},
                "lastState": {"terminated": ENDED},
            },
        ],
    },
}
JOB = {
    "metadata": HEAD,
    "spec": {"suspend": False, "template": {"spec": {"volumes": [{"name": "token"}]}}},
    "status": {"startTime": TIME, "conditions": [{**CONDITION, "type": "Failed", "status": "True"}]},
}
DEPLOYMENT = {
    "metadata": HEAD,
    "spec": {"replicas": 2},
    "status": {"readyReplicas": 1, "observedGeneration": 1, "conditions": [{**CONDITION, "type": "ReplicaFailure"}]},
}
SERVICE = {"metadata": HEAD, "spec": {"selector": {naming.REVISION: "01234567"}}}
BACKENDS = [{"name": "a-cpu-01234567", "weight": 90}, {"name": "a-cpu-89abcdef", "weight": 10}]
ROUTE = {"metadata": HEAD, "spec": {"rules": [{"backendRefs": BACKENDS}]}, "status": {"parents": []}}
CLAIM = {"metadata": HEAD, "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}
PIPELINE = {
    "metadata": HEAD,
    "spec": {"storage": {"claimName": "c", "retain": ["01234567"], "gc": {}}, "suspend": False},
}


def read_pod(manifest: dict[str, Any]) -> None:
    pod = PodView.parse(manifest)
    pod_problem(pod)
    view = JobView.parse({**JOB, "status": {}}, [pod], "quota")
    view.due_to_end_at()
    view.retry_at()
    assert isinstance(pod.has_lost_readiness, bool)
    assert isinstance(pod.has_running_companion, bool)
    assert pod.termination is None or isinstance(pod.termination.builder_error, tuple)


def read_job(manifest: dict[str, Any]) -> None:
    view = JobView.parse(manifest, [PodView.parse(POD)])
    view.retry_at()
    view.due_to_end_at()
    needs_pods(manifest)
    lacks_pods(manifest, {})


def read_deployment(manifest: dict[str, Any]) -> None:
    view = DeploymentView.parse(manifest)
    assert view.ready_replicas >= 0
    assert isinstance(view.siblings, dict)


def read_service(manifest: dict[str, Any]) -> None:
    assert all(weight >= 0 for weight in ServiceView.parse(manifest).canary_weights.values())


def read_route(manifest: dict[str, Any]) -> None:
    RouteView.parse("HTTPRoute", manifest).revision_weights("a", "cpu")


READERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], object]]] = {
    "pod": (POD, read_pod),
    "job": (JOB, read_job),
    "deployment": (DEPLOYMENT, read_deployment),
    "service": (SERVICE, read_service),
    "route": (ROUTE, read_route),
    "claim": (CLAIM, ClaimView.parse),
    "pipeline": (PIPELINE, PipelineView.parse),
    "autoscaler": (DEPLOYMENT, lambda manifest: parse_object("ScaledObject", manifest)),
}
SURE = {("metadata",), ("metadata", "name"), ("metadata", "uid"), ("metadata", "generation"), ("metadata", "namespace")}
"""Fields that the API server itself writes."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - any JSON value
    if path and path not in SURE:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from paths(entry, (*path, key))


def replaced(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    changed = copy.deepcopy(manifest)
    parent: Any = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


@pytest.mark.parametrize("kind", READERS)
def test_any_value_in_any_field_is_read(kind: str) -> None:
    manifest, read = READERS[kind]
    read(manifest)
    count = 0
    for path in paths(manifest):
        for value in VALUES:
            try:
                read(replaced(manifest, path, value))
            except Exception as error:
                raise AssertionError(f"{path} = {str(value)[:20]!r}: {error!r}") from error
            count += 1
    assert count > 100


@pytest.mark.parametrize("kind", READERS)
def test_any_field_may_be_missing(kind: str) -> None:
    manifest, read = READERS[kind]
    for path in paths(manifest):
        changed = copy.deepcopy(manifest)
        parent: Any = changed
        for key in path[:-1]:
            parent = parent[key]
        del parent[path[-1]]
        read(changed)


LAST_WORDS: dict[str, str] = {
    "nothing": "",
    "no JSON": "Killed",
    "deep": DEEP,
    "a list": "[]",
    "no digest": '{"stage": "export"}',
    "no digest of ours": '{"digest": "../../models"}',
    "a number as digest": '{"digest": 3}',
    "numbers as texts": '{"digest": "%s", "seconds": "fast", "sizeBytes": "3", "cached": "no"}' % ("d" * 64),
    "no numbers": '{"digest": "%s", "seconds": NaN, "sizeBytes": 1e400}' % ("d" * 64),
    "null everywhere": '{"digest": "%s", "seconds": null, "subfolders": null, "ensembles": null}' % ("d" * 64),
    "other types": '{"digest": "%s", "subfolders": [], "ensembles": {}, "serverFlags": "--x"}' % ("d" * 64),
    "a surrogate": '{"digest": "\\ud800", "pipelineClass": "\\ud800"}',
    "an error as text": '{"error": "no"}',
    "an error without message": '{"error": {"reason": "X"}}',
    "a reason that is a sentence": '{"error": {"reason": "It did not work at all", "message": "no"}}',
    "a long reason": '{"error": {"reason": "%s", "message": "no"}}' % ("X" * 3000),
    "a long message": '{"error": {"reason": "X", "message": "%s"}}' % ("m" * 3900),
    "binary": "\x00\ufffd\x1b[31m",
}


@pytest.mark.parametrize("code", [0, 1, 64, 137])
@pytest.mark.parametrize("name", LAST_WORDS)
def test_whatever_a_container_says_last_the_pipeline_gets_a_status(name: str, code: int) -> None:
    cluster = FakeCluster()
    cluster.apply_pipeline(storage={"size": "1Gi", "gc": {}})
    settle(cluster)
    for _ in range(6):
        for job in cluster.unfinished_jobs():
            stage = job["metadata"]["labels"][naming.STAGE]
            state = {"name": "build", "state": {"terminated": {"exitCode": code, "message": LAST_WORDS[name]}}}
            cluster.add_pod(job, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [state]})
            cluster.finish_job(job, "Failed" if code else "Complete")
            assert stage
        reconcile(cluster)
        status = cluster.pipeline()["status"]
        assert json.dumps(status, allow_nan=False)
        assert all(len(item["message"]) <= 2048 and " " not in item["reason"] for item in status["conditions"])
        assert not any(
            code and item["type"] == "EnginesReady" and item["status"] == "True" for item in status["conditions"]
        )


def test_a_result_loses_only_what_has_another_type() -> None:
    result = {"digest": DIGEST, "seconds": 3, "sizeBytes": True, "subfolders": {"unet": "u"}, "novelty": [1]}
    assert checked_result("fetch", result) == {
        "digest": DIGEST,
        "seconds": 3,
        "subfolders": {"unet": "u"},
        "novelty": [1],
    }
    assert checked_result("somewhere else", {"digest": 1, "cached": False}) == {"cached": False}
    assert checked_result("gc", {"freedBytes": "many", "deleted": 3}) == {"deleted": 3}


def test_a_container_lost_with_its_node_has_no_times() -> None:
    """As the kubelet reports it after a restart: ContainerStatusUnknown."""
    lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}
    manifest = replaced(POD, ("status", "containerStatuses", 0, "state"), {"terminated": lost})
    pod = PodView.parse(
        replaced(manifest, ("status", "containerStatuses", 1, "state"), {"running": {"startedAt": None}})
    )
    view = JobView.parse({**JOB, "status": {}}, [pod])
    assert view.detained
    assert (view.finished_at, view.due_to_end_at() is not None) == (None, True)


def test_a_companion_s_device_is_not_the_gpu_that_is_waited_for() -> None:
    devices = [
        {"name": "agent", "resources": {"limits": {"smarter-devices/fuse": "1"}}},
        {"name": "build", "resources": {"limits": {"memory": "1Gi"}}},
    ]
    pod = replaced(POD, ("spec", "containers"), devices)
    del pod["spec"]["resourceClaims"]
    assert PodView.parse(pod).gpu is None
    pod["spec"]["resourceClaims"] = [{"name": "network", "resourceClaimTemplateName": "rdma"}]
    assert PodView.parse(pod).gpu is None


@pytest.mark.parametrize("text", ["none", "2026-13-01", "", "yesterday"])
def test_a_time_that_cannot_be_read_is_long_ago(text: str) -> None:
    assert parse_time(text) < parse_time("2026-01-01") < parse_time("2026-01-01T00:00:01.123456789Z") < NOW


def test_json_of_any_depth_is_read() -> None:
    assert parse_json_object(DEEP) == {}


def test_a_view_of_a_pipeline_with_an_invalid_spec_keeps_what_is_valid() -> None:
    body = {"metadata": HEAD, "spec": {**minimal_spec(), "storage": {"retain": ["01234567", 3]}}}
    assert PipelineView.parse(body).retained_digests == {"01234567", ""}
    assert isinstance(PipelineView.parse(body), ObjectView)
