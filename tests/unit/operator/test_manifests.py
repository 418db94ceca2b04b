"""What is created looks exactly like the golden files; write them anew with UPDATE_GOLDEN=1 and read the diff."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_contract.base import Toleration
from diffusion_contract.resources import Resources
from diffusion_contract.spec import DiffusionPipelineSpec, EnvVar, Gpu, ImagesApi, SecretKey, Serving, Storage, Target
from diffusion_contract.spec.autoscaling import (
    Autoscaling,
    KedaAuthentication,
    KedaOptions,
    ScalingBehavior,
    ScalingRules,
)
from diffusion_contract.spec.images_api import ApiAutoscaling
from diffusion_contract.spec.rollout import GatewayRef, Rollout, Scorer, Traffic
from diffusion_contract.spec.serving import RESERVED_VARIABLES, Tracing
from diffusion_operator import naming
from diffusion_operator.manifests import deployment, images_api_objects, policies, route, service
from diffusion_operator.manifests.common import Owner, Placement, placement_of, store_claim, with_gpu
from diffusion_operator.manifests.deployment import RevisionSpec, serving_revision
from diffusion_operator.manifests.event import PendingEvent, event_manifest
from diffusion_operator.manifests.images_api import api_deployment
from diffusion_operator.manifests.job import BuildJobSpec, job_manifest, template_digest
from diffusion_operator.manifests.route import RouteTarget
from diffusion_operator.manifests.service import TrafficSplit, VariantWeight
from diffusion_operator.settings import FetchNetwork, PodUser, Settings

GOLDEN = Path(__file__).parent / "golden"
OWNER = Owner("shapes", "studio", "11111111-2222-3333-4444-555555555555")
SETTINGS = Settings(
    "registry/builder:1",
    "registry/triton:1",
    tensorrt_builder_image="registry/builder-trt:1",
    tensorrt_serving_image="registry/triton-trt:1",
    gateway_image="registry/gateway:1",
    image_pull_secrets=("pull",),
    hub_endpoint="http://hub",
)

FETCH = BuildJobSpec(
    stage="fetch",
    component=None,
    sku=None,
    key="0123456789ab",
    arguments=("--repo", "demo/shapes", "--revision", "f" * 40),
    resources=Resources(requests={"cpu": "100m"}),
    timeout_seconds=3600,
    claim="shapes-store",
    store_uid="66666666",
    token=SecretKey(name="hub", key="token"),
)
FETCH_CLAIM = BuildJobSpec(
    stage="fetch",
    component=None,
    sku=None,
    key="0123456789ab",
    arguments=("--path", "/source/models"),
    resources=Resources(),
    timeout_seconds=60,
    claim="shapes-store",
    store_uid="66666666",
    source_claim="models",
)
COMPILE = BuildJobSpec(
    stage="compile",
    component="text_encoder",
    sku="cpu",
    key="0123456789ab",
    arguments=("--onnx", "a" * 64),
    resources=Resources(requests={"cpu": "500m", "memory": "2Gi"}),
    timeout_seconds=3600,
    claim="shapes-store",
    store_uid="66666666",
    placement=Placement((("kind", "fast"),), (Toleration(key="gpu", operator="Exists"),)),
)
SERVE = RevisionSpec(
    target=Target(name="cpu", replicas=2, node_selector={"kind": "fast"}, tolerations=[Toleration(key="gpu")]),
    serving=Serving(env=[EnvVar(name="DIFFUSION_THREADS", value="2")]),
    repository="b" * 64,
    claim="shapes-store",
    max_steps=20,
)
SCALED = Autoscaling(
    min_replicas=2,
    max_replicas=6,
    behavior=ScalingBehavior(scale_down=ScalingRules(stabilization_window_seconds=600)),
)
WITH_PASSWORD = Autoscaling(
    max_replicas=6,
    provider="keda",
    keda=KedaOptions(
        server_address="https://prometheus",
        activation_query="sum(rate(gateway_requests[1m]))",
        authentication_ref=KedaAuthentication(name="prometheus"),
        metadata={"authModes": "basic", "ignoreNullValues": "false"},
    ),
)
TO_ZERO = Autoscaling(
    min_replicas=0,
    max_replicas=6,
    provider="keda",
    keda=KedaOptions(server_address="http://prometheus:9090", activation_query="sum(rate(gateway_requests[1m]))"),
)

GPU = Target(
    name="l4",
    gpu=Gpu(product="NVIDIA-L4", count=2, runtime_class_name="nvidia"),
    priority_class_name="serving",
    labels={"team": "drawing"},
)
COMPILE_GPU = BuildJobSpec(
    stage="compile",
    component="denoiser",
    sku="NVIDIA-L4",
    key="0123456789ab",
    arguments=("--onnx", "a" * 64),
    resources=Resources(requests={"cpu": "500m", "memory": "2Gi"}),
    timeout_seconds=3600,
    claim="shapes-store",
    store_uid="66666666",
    placement=placement_of(GPU, 1, "builds", SETTINGS.gpu_label),
    labels=(("kueue.x-k8s.io/queue-name", "gpus"),),
)
COMPARE = BuildJobSpec(
    stage="compare",
    component=None,
    sku=None,
    key="0123456789ab",
    arguments=("--stable", "http://a:8000", "--canary", "http://b:8000", "--spec", "{}"),
    resources=Resources(requests={"cpu": "100m"}),
    timeout_seconds=600,
    claim="shapes-store",
    store_uid="66666666",
    scorer=Scorer(image="registry/scorer:1", command=["score", "--strict"]),
)
CLAIMED = Target(name="l4", gpu=Gpu(product="NVIDIA-L4", resource_claim_template_name="one-l4"))

BEHIND = Traffic(
    gateway=GatewayRef(name="web", namespace="edge", section_name="https", hostnames=["pictures.example"]),
    mirror_percent=5,
)
COMPARED = (VariantWeight("fast", "89abcdef", 10, 30), VariantWeight("sharp", None, 0, 20))
SIDES = TrafficSplit("01234567", splits_by_pods=False, variants=COMPARED)
EXPERIMENT = tuple(
    route.routes(OWNER, BEHIND, {"cpu": RouteTarget(SIDES, 2), "l4": RouteTarget(SIDES, 1)}, "x-diffusion-user")
)
ROUTES = tuple(route.routes(OWNER, BEHIND, {"cpu": RouteTarget(TrafficSplit("01234567", "89abcdef", 10), 1)}))
API = ImagesApi.model_validate(
    {
        "auth": {"type": "Keys", "keysSecretRef": {"name": "keys"}},
        "limits": {"perKey": {"concurrent": 4}},
        "provenance": {"embed": ["seed"], "signing": {"secretName": "signer"}},
        "autoscaling": {"maxReplicas": 4},
        "upstream": {"name": "proxy", "namespace": "edge"},
        "nodeSelector": {"kind": "small"},
    }
)
OPEN_API = ImagesApi.model_validate({"auth": {"type": "None"}})


def api_spec(api: ImagesApi, traffic: Traffic | None = None) -> DiffusionPipelineSpec:
    return DiffusionPipelineSpec.model_construct(api=api, rollout=Rollout(traffic=traffic) if traffic else None)


# Namespaces such as OpenShift's assign all three.
ASSIGNED = replace(SETTINGS, pod_user=PodUser(None, None, None))
OBJECTS: dict[str, dict[str, Any]] = {
    "job-fetch-hub": job_manifest(FETCH, OWNER, SETTINGS),
    "job-fetch-claim": job_manifest(FETCH_CLAIM, OWNER, SETTINGS),
    "job-compile": job_manifest(COMPILE, OWNER, SETTINGS, attempt=2),
    "deployment": deployment.deployment(serving_revision(SERVE, OWNER, SETTINGS), OWNER),
    "job-compare": job_manifest(COMPARE, OWNER, SETTINGS),
    "job-fetch-hub-assigned-user": job_manifest(FETCH, OWNER, ASSIGNED),
    "deployment-assigned-user": deployment.deployment(serving_revision(SERVE, OWNER, ASSIGNED), OWNER),
    "job-compile-gpu": job_manifest(COMPILE_GPU, OWNER, SETTINGS),
    "deployment-gpu": deployment.deployment(serving_revision(replace(SERVE, target=GPU), OWNER, SETTINGS), OWNER),
    "deployment-gpu-claim": deployment.deployment(
        serving_revision(replace(SERVE, target=CLAIMED), OWNER, SETTINGS), OWNER
    ),
    "service-revision": service.revision_service(OWNER, "cpu", "01234567"),
    "service-target": service.target_service(OWNER, "cpu", TrafficSplit("01234567")),
    "service-target-by-pods": service.target_service(OWNER, "cpu", TrafficSplit("01234567", "89abcdef", 10)),
    "service-pipeline-one-target": service.pipeline_service(OWNER, {"cpu": TrafficSplit("01234567")}),
    "service-pipeline-two-targets": service.pipeline_service(
        OWNER, {"cpu": TrafficSplit("01234567"), "l4": TrafficSplit("89abcdef")}
    ),
    "route-http-mirrored": ROUTES[0],
    "route-grpc-mirrored": ROUTES[1],
    "route-http-experiment": EXPERIMENT[0],
    "route-grpc-experiment": EXPERIMENT[1],
    "budget": policies.disruption_budget(OWNER, "cpu"),
    "autoscaler-hpa": policies.autoscaler(OWNER, "cpu", "01234567", SCALED),
    "autoscaler-keda": policies.autoscaler(OWNER, "cpu", "01234567", TO_ZERO),
    "autoscaler-keda-password": policies.autoscaler(OWNER, "cpu", "01234567", WITH_PASSWORD),
    "api": api_deployment(OWNER, api_spec(OPEN_API), OPEN_API, SETTINGS),
    "api-behind-a-gateway": api_deployment(OWNER, api_spec(API, BEHIND), API, SETTINGS),
    "api-service": images_api_objects.api_service(OWNER),
    "api-route": images_api_objects.api_route(OWNER, BEHIND.gateway or GatewayRef(name="web")),
    "api-network": images_api_objects.api_network_policy(OWNER, OPEN_API),
    "api-network-behind-a-gateway": images_api_objects.api_network_policy(OWNER, API),
    "api-autoscaler": images_api_objects.api_autoscaler(OWNER, ApiAutoscaling(max_replicas=4)),
    "api-budget": images_api_objects.api_disruption_budget(OWNER),
    "claim": store_claim(Storage(size="20Gi"), OWNER),
    "event": event_manifest(
        PendingEvent(warning=True, reason="PickleOnly", message="No."), OWNER, 3, "2026-01-01T00:00:00Z"
    ),
}
PODS = {
    name: document["spec"]["template"]["spec"]
    for name, document in OBJECTS.items()
    if document["kind"] in {"Job", "Deployment"}
}


@pytest.mark.parametrize("name", OBJECTS)
def test_it_is_as_the_golden_file_says(name: str) -> None:
    file, text = GOLDEN / f"{name}.yaml", yaml.safe_dump(OBJECTS[name], sort_keys=False, width=110)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert yaml.safe_load(file.read_text()) == OBJECTS[name]


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == set(OBJECTS)


@pytest.mark.parametrize("name", PODS)
def test_no_pod_gets_an_api_token_and_all_are_restricted(name: str) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", PODS)
def test_only_the_download_sees_the_token_and_never_in_its_environment(name: str) -> None:
    pod = PODS[name]
    secrets = [volume for volume in pod["volumes"] if "secret" in volume]
    assert bool(secrets) == (name.startswith("job-fetch-hub") or name == "api-behind-a-gateway")
    for container in pod["containers"]:
        assert not [item for item in container.get("env", []) if "secretKeyRef" in item.get("valueFrom", {})]


def test_serving_cannot_write_the_store() -> None:
    pod = PODS["deployment"]
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == naming.STORE]
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    for container in [*pod["initContainers"], *pod["containers"]]:
        [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == naming.STORE]
        assert mount["readOnly"] is True


def option(arguments: list[str], name: str) -> int:
    """The number that is given for an option, either way of writing it."""
    for index, argument in enumerate(arguments):
        if argument == name:
            return int(arguments[index + 1])
        if argument.startswith(f"{name}="):
            return int(argument.rpartition("=")[2])
    raise AssertionError(f"no {name} in {arguments}")


@pytest.mark.parametrize("longest", [4, 64])
def test_a_stopping_pod_is_killed_only_after_it_had_time_for_its_longest_tier(longest: int) -> None:
    pod = deployment.deployment(serving_revision(replace(SERVE, max_steps=longest), OWNER, SETTINGS), OWNER)["spec"][
        "template"
    ]["spec"]
    [server] = pod["containers"]
    drained = option(server["lifecycle"]["preStop"]["exec"]["command"], "--timeout")
    assert drained >= longest * 2
    assert pod["terminationGracePeriodSeconds"] > drained + option(server["args"], "--exit-timeout-secs")
    assert option(server["args"], "--grpc-max-connection-age-grace") >= drained * 1000


def server_environment(target: Target, *variables: EnvVar) -> list[dict[str, Any]]:
    """Environment of the server."""
    request = replace(SERVE, target=target, serving=Serving(env=list(variables) or None))
    [server] = serving_revision(request, OWNER, SETTINGS).pod["containers"]
    environment: list[dict[str, Any]] = server["env"]
    return environment


def test_exactly_the_variables_that_the_operator_sets_itself_are_reserved() -> None:
    assert {variable["name"] for variable in server_environment(GPU)} == set(RESERVED_VARIABLES)


@pytest.mark.parametrize(
    "source",
    [
        {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}},
        {"configMapKeyRef": {"name": "settings", "key": "threads"}},
        {"fieldRef": {"fieldPath": "spec.nodeName"}},
    ],
    ids=lambda source: next(iter(source)),
)
def test_a_variable_from_elsewhere_is_written_as_in_a_pod(source: dict[str, Any]) -> None:
    entry = {"name": "A", "valueFrom": source}
    assert server_environment(GPU, EnvVar.model_validate(entry)).count(entry) == 1


def test_the_number_of_pods_is_left_to_whoever_scales() -> None:
    assert "replicas" not in deployment.deployment(serving_revision(SERVE, OWNER, SETTINGS), OWNER)["spec"]


def test_the_builder_image_changes_how_a_job_runs_but_not_its_name() -> None:
    newer = Settings("registry/builder:2", "registry/triton:1")
    assert template_digest(FETCH, SETTINGS) != template_digest(FETCH, newer)
    assert (
        job_manifest(FETCH, OWNER, SETTINGS)["metadata"]["name"]
        == job_manifest(FETCH, OWNER, newer)["metadata"]["name"]
    )


def test_proxy_and_certificates_are_those_of_the_jobs_that_fetch_and_of_nobody_else() -> None:
    closed = replace(SETTINGS, fetch=FetchNetwork((("HTTPS_PROXY", "http://proxy:3128"),), "company-ca", "bundle.pem"))
    pod = job_manifest(FETCH, OWNER, closed)["spec"]["template"]["spec"]
    environment = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
    mounted = {item["name"]: item["mountPath"] for item in pod["containers"][0]["volumeMounts"]}
    [volume] = [item for item in pod["volumes"] if item["name"] == "ca"]
    assert environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert environment["SSL_CERT_FILE"] == f"{mounted['ca']}/{volume['configMap']['items'][0]['path']}"
    assert volume["configMap"]["items"][0]["key"] == "bundle.pem"
    for request in (FETCH_CLAIM, COMPILE):
        assert job_manifest(request, OWNER, closed) == job_manifest(request, OWNER, SETTINGS)
    assert deployment.deployment(serving_revision(SERVE, OWNER, closed), OWNER) == deployment.deployment(
        serving_revision(SERVE, OWNER, SETTINGS), OWNER
    )


def test_jobs_and_servers_run_as_the_accounts_that_the_administrator_names_without_a_token() -> None:
    settings = replace(SETTINGS, build_service_account="build", serving_service_account="serving")
    pods = [
        document["spec"]["template"]["spec"] for document in (job_manifest(FETCH, OWNER, settings), deployed(settings))
    ]
    assert [pod["serviceAccountName"] for pod in pods] == ["build", "serving"]
    assert [pod["automountServiceAccountToken"] for pod in pods] == [False, False]
    assert "serviceAccountName" not in deployed(SETTINGS)["spec"]["template"]["spec"]


def deployed(settings: Settings) -> dict[str, Any]:
    return deployment.deployment(serving_revision(SERVE, OWNER, settings), OWNER)


def test_the_revision_names_the_pods_and_not_their_number() -> None:
    scaled = replace(SERVE, target=SERVE.target.model_copy(update={"replicas": 5, "autoscaling": SCALED}))
    assert serving_revision(SERVE, OWNER, SETTINGS).name == serving_revision(scaled, OWNER, SETTINGS).name
    other = Settings("registry/builder:1", "registry/triton:2")
    assert serving_revision(SERVE, OWNER, SETTINGS).name != serving_revision(SERVE, OWNER, other).name


def test_the_longest_names_fit_into_a_label() -> None:
    assert len(naming.revision_name("p" * 38, "t" * 15, "0" * 8)) <= 63
    assert len(naming.job_name("export", "scheduler_step", "0" * 12)) <= 63
    prefix, _, name = naming.needed_by_label("p" * 38).partition("/")
    assert len(prefix) <= 253
    assert len(name) <= 63


def test_a_gpu_among_the_resources_never_differs_from_the_targets_number() -> None:
    """Kubernetes refuses a request of a device that is not its limit."""
    both = {"nvidia.com/gpu": 1}
    container = {"resources": {"requests": {"cpu": 1, **both}, "limits": both}}
    resources = with_gpu(container, placement_of(GPU, 2, None, SETTINGS.gpu_label))["resources"]
    assert resources == {"requests": {"cpu": 1}, "limits": {"nvidia.com/gpu": "2"}}
    alone = with_gpu({"resources": {"requests": both}}, placement_of(GPU, 2, None, SETTINGS.gpu_label))
    assert alone["resources"] == {"limits": resources["limits"]}


def test_traces_are_configured_in_triton_s_words_and_only_where_they_are_requested() -> None:
    tracing = Tracing(endpoint="http://collector.monitoring:4318/v1/traces", rate=20)
    plain = serving_revision(SERVE, OWNER, SETTINGS)
    traced = serving_revision(replace(SERVE, serving=Serving(tracing=tracing)), OWNER, SETTINGS)
    arguments = traced.pod["containers"][0]["args"]
    assert not any("trace-config" in argument for argument in plain.pod["containers"][0]["args"])
    assert [argument for argument in arguments if "trace-config" in argument] == [
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=20",
        "--trace-config=count=-1",
        "--trace-config=opentelemetry,url=http://collector.monitoring:4318/v1/traces",
        "--trace-config=opentelemetry,resource=service.name=shapes",
        "--trace-config=opentelemetry,resource=service.namespace=studio",
    ]
    assert traced.name != plain.name
