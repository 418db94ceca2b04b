"""spec.api: what is deployed in front of a pipeline, when it counts as available, and how it goes away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from diffusion_contract.spec import DiffusionPipelineSpec
from diffusion_gateway.cli import _settings, cli
from diffusion_gateway.settings import KeyLimits, QueueLimits, TracingSettings
from diffusion_operator import naming
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.images_api import FORWARDED_HEADERS, api_deployment
from diffusion_operator.preview import ClusterSnapshot, preview
from diffusion_operator.reconcile import PipelineKey, Reconciler
from tests.support.operator.fake_cluster import NAMESPACE, FakeCluster, minimal_spec
from tests.support.operator.reconciling import SETTINGS, reconcile, serve, settle

OPEN = {"auth": {"type": "None"}}
KEYS = {"auth": {"type": "Keys", "keysSecretRef": {"name": "shapes-keys"}}}
NAME = "shapes-api"
BEHIND = {"traffic": {"gateway": {"name": "web", "hostnames": ["*.shapes.example"]}}}
UPSTREAM = {"name": "proxy", "namespace": "gateways"}
KINDS = ("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "HTTPRoute")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def kinds(cluster: FakeCluster) -> set[str]:
    """Kinds of the API's objects."""
    return {kind for kind in KINDS if NAME in cluster.names(kind)}


def deployment(cluster: FakeCluster) -> dict[str, Any]:
    return cluster.objects["Deployment", NAME]


def arguments(**spec: Any) -> list[str]:  # noqa: ANN401 - fields of a spec
    """What the container is started with."""
    parsed = DiffusionPipelineSpec.model_validate(minimal_spec() | spec)
    assert parsed.api is not None
    body = api_deployment(Owner("shapes", NAMESPACE, "uid"), parsed, parsed.api, SETTINGS)
    [container] = body["spec"]["template"]["spec"]["containers"]
    args: list[str] = container["args"]
    return args


def gateway_settings(args: list[str]) -> Any:  # noqa: ANN401 - the gateway's own Settings
    """The settings that the gateway's command line makes of them."""
    command, *options = args
    return _settings(cli.commands[command].make_context(command, options).params)


def test_without_the_field_there_is_nothing(cluster: FakeCluster) -> None:
    cluster.apply_pipeline()
    serve(cluster)
    assert kinds(cluster) == set()
    assert "APIAvailable" not in {item["type"] for item in cluster.pipeline()["status"]["conditions"]}
    assert "api" not in cluster.pipeline()["status"]


def test_it_comes_once_the_pipeline_serves_and_is_ready_with_a_pod(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api=OPEN)
    settle(cluster)
    assert kinds(cluster) == set()
    assert cluster.condition("APIAvailable")["reason"] == "WaitingForRepository"
    serve(cluster)
    assert kinds(cluster) == {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    cluster.set_ready(NAME, 0)
    settle(cluster)
    assert cluster.condition("APIAvailable")["reason"] == "Starting"
    assert cluster.condition("Available")["status"] == "True"
    assert cluster.condition("Ready")["status"] == "False"
    cluster.set_ready(NAME, 2)
    settle(cluster)
    assert cluster.condition("Ready")["status"] == "True"
    url = f"http://{NAME}.{NAMESPACE}.svc"
    assert cluster.pipeline()["status"]["api"] == {"url": url, "replicas": 2, "readyReplicas": 2}


def test_all_its_objects_are_the_pipelines_and_none_is_a_server(cluster: FakeCluster) -> None:
    scaling = {"autoscaling": {"maxReplicas": 4}}
    cluster.apply_pipeline(api={**OPEN, **scaling, "upstream": UPSTREAM}, rollout=BEHIND)
    serve(cluster)
    assert kinds(cluster) == set(KINDS)
    uid = cluster.pipeline()["metadata"]["uid"]
    for kind in KINDS:
        head = cluster.objects[kind, NAME]["metadata"]
        assert [(item["uid"], item["controller"]) for item in head["ownerReferences"]] == [(uid, True)]
        assert head["labels"][naming.ROLE] == "api"
    pods = deployment(cluster)["spec"]["template"]["metadata"]["labels"]
    for name in ("shapes", "shapes-cpu"):
        assert not cluster.objects["Service", name]["spec"]["selector"].items() <= pods.items()
    budget = cluster.objects["PodDisruptionBudget", "shapes-cpu"]["spec"]["selector"]["matchLabels"]
    assert not budget.items() <= pods.items()


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://collector.monitoring:4318/v1/traces", 4318),
        ("https://traces.example/v1?a=b:7", 443),
        ("http://[fd00::1]:4318", 4318),
        ("http://collector", 80),
    ],
)
def test_one_setting_traces_the_api_and_triton(cluster: FakeCluster, endpoint: str, port: int) -> None:
    cluster.apply_pipeline(api=OPEN, serving={"tracing": {"endpoint": endpoint, "rate": 20}})
    serve(cluster)
    [container] = deployment(cluster)["spec"]["template"]["spec"]["containers"]
    attributes = (("service.name", NAME), ("service.namespace", NAMESPACE))
    assert gateway_settings(container["args"]).tracing == TracingSettings(endpoint, 20, attributes)
    rules = cluster.objects["NetworkPolicy", NAME]["spec"]["egress"]
    assert rules[-1] == {"ports": [{"protocol": "TCP", "port": port}]}
    cluster.apply_pipeline(api=OPEN)
    serve(cluster)
    assert cluster.objects["NetworkPolicy", NAME]["spec"]["egress"] == rules[:-1]


def test_a_removed_field_takes_everything_and_leaves_what_serves(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api={**OPEN, "autoscaling": {"maxReplicas": 4}, "upstream": UPSTREAM}, rollout=BEHIND)
    serve(cluster)
    cluster.apply_pipeline(rollout=BEHIND)
    settle(cluster)
    assert kinds(cluster) == set()
    assert cluster.names("HTTPRoute") == ["shapes"]
    assert cluster.condition("Ready")["status"] == "True"


def test_optional_objects_go_with_their_fields(cluster: FakeCluster) -> None:
    own = {"gateway": {"name": "public"}}
    cluster.apply_pipeline(api={**OPEN, **own, "autoscaling": {"maxReplicas": 4}})
    serve(cluster)
    assert kinds(cluster) == set(KINDS)
    assert cluster.names("HTTPRoute") == [NAME]
    cluster.apply_pipeline(api={**OPEN, "networkPolicy": False})
    settle(cluster)
    assert kinds(cluster) == {"Deployment", "Service", "PodDisruptionBudget"}


def test_the_number_of_pods_is_the_specs_or_the_autoscalers(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api={**OPEN, "replicas": 3})
    serve(cluster)
    assert deployment(cluster)["spec"]["replicas"] == 3
    cluster.apply_pipeline(api={**OPEN, "replicas": 1})
    settle(cluster)
    assert deployment(cluster)["spec"]["replicas"] == 1
    cluster.apply_pipeline(api={**OPEN, "autoscaling": {"maxReplicas": 4}})
    deployment(cluster)["spec"]["replicas"] = 4
    settle(cluster)
    assert deployment(cluster)["spec"]["replicas"] == 4


@pytest.mark.parametrize("scaling", [{}, {"autoscaling": {"maxReplicas": 4}}], ids=["fixed", "autoscaled"])
def test_while_suspended_it_has_no_pods_and_comes_back(cluster: FakeCluster, scaling: dict[str, Any]) -> None:
    cluster.apply_pipeline(api={**OPEN, **scaling})
    serve(cluster)
    cluster.apply_pipeline(api={**OPEN, **scaling}, suspend=True)
    settle(cluster)
    assert deployment(cluster)["spec"]["replicas"] == 0
    assert "HorizontalPodAutoscaler" not in kinds(cluster)
    assert cluster.condition("APIAvailable")["reason"] == "Suspended"
    cluster.apply_pipeline(api={**OPEN, **scaling})
    serve(cluster)
    assert deployment(cluster)["spec"]["replicas"] == 2
    assert cluster.condition("Ready")["status"] == "True"


def test_a_rollback_leaves_it_alone(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api=OPEN)
    serve(cluster)
    before = deployment(cluster)["spec"]
    cluster.apply_pipeline(api=OPEN, rollout={"strategy": "RollingUpdate", "rollbackTo": "01234567"})
    settle(cluster)
    assert cluster.condition("RolloutComplete")["reason"] == "RevisionNotInHistory"
    assert deployment(cluster)["spec"] == before
    assert cluster.condition("APIAvailable")["status"] == "True"


def test_a_deleted_pipeline_leaves_nothing(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api=OPEN)
    serve(cluster)
    cluster.delete_pipeline()
    assert kinds(cluster) == set()


def test_a_foreign_service_of_its_name_is_left_alone_and_named(cluster: FakeCluster) -> None:
    cluster.objects["Service", NAME] = {
        "kind": "Service", "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": {"mine": True}
    }  # fmt: skip
    cluster.apply_pipeline(api=OPEN)
    serve(cluster)
    assert cluster.objects["Service", NAME]["spec"] == {"mine": True}
    assert cluster.condition("Accepted")["reason"] == "NameConflict"
    assert NAME in cluster.condition("Ready")["message"]
    assert cluster.condition("Available")["status"] == "True"


def test_a_missing_secret_is_named(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api=KEYS)
    serve(cluster)
    cluster.set_ready(NAME, 0)
    waiting = {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    head = {"name": f"{NAME}-0", "labels": deployment(cluster)["spec"]["template"]["metadata"]["labels"]}
    volumes = deployment(cluster)["spec"]["template"]["spec"]["volumes"]
    cluster.objects["Pod", f"{NAME}-0"] = {
        "kind": "Pod",
        "metadata": {**head, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"volumes": volumes},
        "status": {"phase": "Pending", "conditions": [waiting]},
    }
    reconcile(cluster)
    assert cluster.condition("APIAvailable")["reason"] == "ContainerConfigError"
    assert "Secret shapes-keys" in cluster.condition("Ready")["message"]


def test_an_operator_without_the_image_says_which_value_is_missing(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api=OPEN)
    reconcile(cluster, settings=replace(SETTINGS, gateway_image=""))
    assert cluster.condition("Accepted")["reason"] == "InvalidSpec"
    assert "images.gateway" in cluster.condition("Accepted")["message"]
    cluster.apply_pipeline(api={**OPEN, "image": "mine:1"})
    reconcile(cluster, settings=replace(SETTINGS, gateway_image=""))
    assert cluster.condition("Accepted")["status"] == "True"


def test_the_arguments_mean_to_the_gateway_what_the_spec_says() -> None:
    api = {
        **KEYS,
        "limits": {
            "concurrent": 8,
            "waiting": 32,
            "perKey": {"concurrent": 2, "waiting": 0},
            "uploadMiB": 4,
            "bufferedMiB": 64,
            "pixels": 1048576,
            "timeout": "1m",
        },
        "provenance": {"embed": ["model", "seed"], "signing": {"secretName": "signer", "algorithm": "ps256"}},
    }
    settings = gateway_settings(arguments(api=api))
    assert settings.queue == QueueLimits(8, 32)
    assert settings.key_limits == KeyLimits(2, 0)
    assert (settings.limits.upload_bytes, settings.limits.buffered_bytes) == (4 << 20, 64 << 20)
    assert (settings.limits.pixels, settings.limits.request_seconds) == (1048576, 60)
    assert (settings.provenance.model, settings.provenance.prompt, settings.provenance.seed) == (True, False, True)
    assert str(settings.keys) == "/keys/keys.json"
    assert (str(settings.signing.certificates), settings.signing.algorithm) == ("/signing/tls.crt", "ps256")
    [pipeline] = settings.pipelines
    assert (pipeline.name, pipeline.address, pipeline.authority) == ("shapes", "shapes.studio.svc:8001", "")


def test_the_defaults_of_the_spec_are_those_of_the_gateway() -> None:
    by_spec = gateway_settings(arguments(api=OPEN))
    by_itself = gateway_settings(["run", "--pipeline=shapes=shapes.studio.svc", "--auth=none"])
    assert by_spec == by_itself


def test_behind_a_gateway_requests_pass_through_the_routes_with_the_weights() -> None:
    """Shares and users' variants are decided where they are for every other client."""
    traffic = {**BEHIND["traffic"], "header": {"name": "X-Tester"}}
    variants = [{"name": "b", "weight": 10, "scheduler": {"type": "Euler"}}]
    experiment = {"variants": variants, "header": {"name": "x-account"}}
    rollout = {"strategy": "RollingUpdate", "traffic": traffic, "experiment": experiment}
    settings = gateway_settings(arguments(api={**OPEN, "upstream": UPSTREAM}, rollout=rollout))
    [pipeline] = settings.pipelines
    assert (pipeline.address, pipeline.authority) == ("proxy.gateways.svc:80", "shapes.shapes.example")
    assert {"x-tester", "x-account", *FORWARDED_HEADERS} <= set(settings.forwarded_headers)


def test_a_host_of_its_own_wins_over_that_of_the_route() -> None:
    args = arguments(api={**OPEN, "upstream": {**UPSTREAM, "hostname": "inside.example"}}, rollout=BEHIND)
    assert "--authority=inside.example" in args


def test_a_plan_names_its_objects_before_there_are_any() -> None:
    spec = DiffusionPipelineSpec.model_validate(minimal_spec() | {"api": OPEN})
    changes = {
        (change.verb, change.kind) for change in preview(None, "studio/shapes", spec).changes if change.name == NAME
    }
    assert changes == {("create", kind) for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")}


def test_a_plan_of_what_is_there_already_changes_nothing(cluster: FakeCluster) -> None:
    cluster.apply_pipeline(api=OPEN)
    serve(cluster)
    spec = DiffusionPipelineSpec.model_validate(cluster.pipeline()["spec"])
    observed = asyncio.run(Reconciler(cluster, SETTINGS).observe(PipelineKey(NAMESPACE, "shapes"), spec))
    planned = preview(ClusterSnapshot(observed, observed.jobs), f"{NAMESPACE}/shapes", spec)
    assert [change for change in planned.changes if change.name == NAME] == []
