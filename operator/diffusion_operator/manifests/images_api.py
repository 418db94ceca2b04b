"""The Deployment of the images API in front of a pipeline: `diffusion-gateway`, with arguments from the spec."""

from collections.abc import Iterator

from diffusion_contract.durations import duration_seconds
from diffusion_contract.limits import API_METRICS_PORT, API_PORT, GRPC_PORT
from diffusion_contract.spec import DiffusionPipelineSpec, ImagesApi
from diffusion_contract.spec.images_api import ApiLimits, ApiProvenance
from diffusion_contract.spec.serving import Tracing
from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner, Placement, container_fields, metadata, pod_fields
from diffusion_operator.manifests.overlay import with_overlay
from diffusion_operator.manifests.store_node import HOST
from diffusion_operator.settings import Settings

KEYS_PATH, SIGNING_PATH = "/keys", "/signing"
# Endpoints lose the pod meanwhile: no new connections come.
DRAIN_SECONDS = 5
# The gateway gives what runs 60 seconds.
TERMINATION_SECONDS = 90
FORWARDED_HEADERS = frozenset({"x-diffusion-revision", "x-diffusion-user"})
"""What the gateway hands on by itself, of the headers that routes split traffic by."""


def api_labels(pipeline: str) -> dict[str, str]:
    """Labels of all objects of the API, and of its pods."""
    return naming.common_labels(pipeline, naming.API)


def api_selector(pipeline: str) -> dict[str, str]:
    """Labels that only the API's pods have."""
    return {naming.PIPELINE: pipeline, naming.ROLE: naming.API}


def api_metadata(owner: Owner) -> JsonObject:
    """Metadata of an object of the API; all have one name."""
    return metadata(naming.api_name(owner.name), owner, api_labels(owner.name))


def api_deployment(owner: Owner, spec: DiffusionPipelineSpec, api: ImagesApi, settings: Settings) -> JsonObject:
    """The Deployment without its number of pods, which others may own.

    Args:
        owner: the pipeline.
        spec: of the pipeline.
        api: the part of it that is deployed.
        settings: of the operator.
    """
    placement = Placement(
        tuple(sorted((api.node_selector or {}).items())), tuple(api.tolerations or ()), api.priority_class_name
    )
    pod = {
        **pod_fields(settings, placement, settings.serving_service_account),
        "terminationGracePeriodSeconds": TERMINATION_SECONDS,
        "topologySpreadConstraints": [_topology_spread(owner)],
        "containers": [_container(owner, spec, api, settings)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *_secret_volumes(api)],
    }
    template = with_overlay({"metadata": {"labels": api_labels(owner.name)}, "spec": pod}, api.pod_template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": api_metadata(owner),
        "spec": {
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": api_selector(owner.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _topology_spread(owner: Owner) -> JsonObject:
    return {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": api_selector(owner.name)},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _container(owner: Owner, spec: DiffusionPipelineSpec, api: ImagesApi, settings: Settings) -> JsonObject:
    image = api.image or settings.gateway_image
    return {
        **container_fields(naming.GATEWAY, image, settings.image_pull_policy, api.resources),
        # What it says before it ends is the reason.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "args": [*_arguments(owner, spec, api)],
        "ports": [
            {"name": "http", "containerPort": API_PORT},
            {"name": "metrics", "containerPort": API_METRICS_PORT},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
            *(
                {"name": volume["name"], "mountPath": f"/{volume['name']}", "readOnly": True}
                for volume in _secret_volumes(api)
            ),
        ],
    }


def _secret_volumes(api: ImagesApi) -> list[JsonObject]:
    volumes: list[JsonObject] = []
    keys = api.auth.keys_secret_ref
    if keys is not None:
        items = [{"key": keys.key, "path": keys.key}]
        volumes.append({"name": KEYS_PATH.strip("/"), "secret": {"secretName": keys.name, "items": items}})
    if api.provenance is not None and api.provenance.signing is not None:
        secret = {"secretName": api.provenance.signing.secret_name}
        volumes.append({"name": SIGNING_PATH.strip("/"), "secret": secret})
    return volumes


def _arguments(owner: Owner, spec: DiffusionPipelineSpec, api: ImagesApi) -> Iterator[str]:
    yield "run"
    yield f"--pipeline={owner.name}={_upstream(owner, api)}"
    if (authority := _authority(owner, spec, api)) is not None:
        yield f"--authority={authority}"
    yield from (f"--forward-header={name}" for name in _route_headers(spec))
    yield "--host=0.0.0.0"
    yield f"--port={API_PORT}"
    yield f"--metrics-port={API_METRICS_PORT}"
    yield "--log-format=json"
    keys = api.auth.keys_secret_ref
    yield f"--keys={KEYS_PATH}/{keys.key}" if keys is not None else "--auth=none"
    yield from _limit_arguments(api.limits)
    if spec.serving.tracing is not None:
        yield from _tracing_arguments(owner, spec.serving.tracing)
    if api.provenance is not None:
        yield from _provenance_arguments(api.provenance)


def _upstream(owner: Owner, api: ImagesApi) -> str:
    """Where the requests go: the pipeline's Service, or the proxy whose routes have the weights."""
    if api.upstream is None:
        return f"{owner.name}.{owner.namespace}.svc:{GRPC_PORT}"
    return f"{api.upstream.name}.{api.upstream.namespace or owner.namespace}.svc:{api.upstream.port}"


def _authority(owner: Owner, spec: DiffusionPipelineSpec, api: ImagesApi) -> str | None:
    """Host that a GRPCRoute matches; a wildcard of the route takes any name in its place."""
    if api.upstream is None or spec.traffic_gateway is None:
        return None
    first = next(iter(spec.traffic_gateway.hostnames or ()), None)
    return api.upstream.hostname or (first.replace("*", owner.name) if first is not None else None)


def _route_headers(spec: DiffusionPipelineSpec) -> list[str]:
    """Headers by which the spec's routes split traffic, besides those that the gateway hands on by itself."""
    if spec.rollout is None or spec.traffic_gateway is None:
        return []
    names = {spec.rollout.traffic.header.name.lower()}
    if spec.rollout.experiment is not None:
        names.add(spec.rollout.experiment.header.name.lower())
    return sorted(names - FORWARDED_HEADERS)


def _limit_arguments(limits: ApiLimits) -> Iterator[str]:
    yield f"--concurrent={limits.concurrent}"
    yield f"--waiting={limits.waiting}"
    if limits.per_key is not None and limits.per_key.concurrent is not None:
        yield f"--key-concurrent={limits.per_key.concurrent}"
    if limits.per_key is not None and limits.per_key.waiting is not None:
        yield f"--key-waiting={limits.per_key.waiting}"
    yield f"--max-upload={limits.upload_mib}"
    yield f"--max-buffered={limits.buffered_mib}"
    yield f"--max-pixels={limits.pixels}"
    yield f"--timeout={duration_seconds(limits.timeout)}"


def _tracing_arguments(owner: Owner, tracing: Tracing) -> Iterator[str]:
    yield f"--trace-endpoint={tracing.endpoint}"
    yield f"--trace-rate={tracing.rate}"
    yield f"--trace-resource=service.name={naming.api_name(owner.name)}"
    yield f"--trace-resource=service.namespace={owner.namespace}"


def _provenance_arguments(provenance: ApiProvenance) -> Iterator[str]:
    yield from (f"--embed={item}" for item in provenance.embed or ())
    if provenance.signing is not None:
        yield f"--sign-certificates={SIGNING_PATH}/tls.crt"
        yield f"--sign-key={SIGNING_PATH}/tls.key"
        yield f"--sign-algorithm={provenance.signing.algorithm}"
