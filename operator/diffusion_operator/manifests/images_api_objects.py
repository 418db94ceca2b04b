"""What stands beside the Deployment of the images API: Service, route, NetworkPolicy, autoscaler and budget."""

import re

from diffusion_contract.limits import API_METRICS_PORT, API_PORT, GRPC_PORT
from diffusion_contract.spec import ImagesApi
from diffusion_contract.spec.images_api import ApiAutoscaling, ProxyService
from diffusion_contract.spec.rollout import GatewayRef
from diffusion_contract.spec.serving import Tracing
from diffusion_operator import naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests import route
from diffusion_operator.manifests.common import Owner
from diffusion_operator.manifests.images_api import api_metadata, api_selector

SERVICE_PORT = 80
PREFIX = "/v1"
PAGE = ("/", "/page.js", "/page.css")
ENDPOINT = re.compile(r"https?://[^/?#]*?(:(?P<port>[0-9]{1,5}))?([/?#]|$)")
DEFAULT_PORTS = {"http": 80, "https": 443}
DNS_PORTS = (53, 5353)
"""Ports of the cluster's DNS as its pods listen on them; the second one on OpenShift."""


def api_url(owner: Owner) -> str:
    """Address of the API inside the cluster."""
    return f"http://{naming.api_name(owner.name)}.{owner.namespace}.svc"


def api_service(owner: Owner) -> JsonObject:
    """Service of the API and its page."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": api_metadata(owner),
        "spec": {
            "type": "ClusterIP",
            "selector": api_selector(owner.name),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http"}],
        },
    }


def api_route(owner: Owner, gateway: GatewayRef) -> JsonObject:
    """HTTPRoute of the API's paths only: on the same host, the pipeline's own route has the others."""
    matches = [{"path": {"type": "PathPrefix", "value": PREFIX}}]
    matches += [{"path": {"type": "Exact", "value": path}} for path in PAGE]
    backend = {"group": "", "kind": "Service", "name": naming.api_name(owner.name), "port": SERVICE_PORT, "weight": 1}
    return {
        "apiVersion": f"{route.API}/v1",
        "kind": "HTTPRoute",
        "metadata": api_metadata(owner),
        "spec": {
            **route.parents(gateway),
            # The API has a limit of its own, which a proxy's default would undercut.
            "rules": [{"matches": matches, "backendRefs": [backend], "timeouts": {"request": "0s"}}],
        },
    }


def api_network_policy(owner: Owner, api: ImagesApi, tracing: Tracing | None = None) -> JsonObject:
    """Requests and metrics come in; to the pipeline, or the proxy before it, DNS and the collector of traces go out.

    Args:
        owner: the pipeline.
        api: the part of its spec.
        tracing: of its requests.
    """
    egress = [_dns_egress(), _proxy_egress(owner, api.upstream) if api.upstream else _serving_egress(owner)]
    if tracing is not None:
        egress.append(_collector_egress(tracing))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": api_metadata(owner),
        "spec": {
            "podSelector": {"matchLabels": api_selector(owner.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": port} for port in (API_PORT, API_METRICS_PORT)]}],
            "egress": egress,
        },
    }


def _dns_egress() -> JsonObject:
    # To any address: a node's own DNS cache is no pod.
    return {"ports": [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP") for port in DNS_PORTS]}


def _serving_egress(owner: Owner) -> JsonObject:
    pods = {"matchLabels": {naming.PIPELINE: owner.name, naming.ROLE: naming.SERVING}}
    return {"to": [{"podSelector": pods}], "ports": [{"protocol": "TCP", "port": GRPC_PORT}]}


def _proxy_egress(owner: Owner, proxy: ProxyService) -> JsonObject:
    """A policy sees the pods behind a Service, whose labels and ports are the proxy's own."""
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": proxy.namespace or owner.namespace}}
    return {"to": [{"namespaceSelector": namespace}]}


def _collector_egress(tracing: Tracing) -> JsonObject:
    """To any address: a collector may be outside of the cluster."""
    parts = ENDPOINT.match(tracing.endpoint)
    port = int(parts["port"]) if parts is not None and parts["port"] else DEFAULT_PORTS[tracing.endpoint.split(":")[0]]
    return {"ports": [{"protocol": "TCP", "port": port}]}


def api_autoscaler(owner: Owner, scaling: ApiAutoscaling) -> JsonObject:
    """HorizontalPodAutoscaler by processor time, which an image costs the API and waiting does not."""
    target = {"type": "Utilization", "averageUtilization": scaling.target_cpu_utilization}
    # Of the API's container alone: an added one may request no processor time.
    processor = {"name": "cpu", "container": naming.GATEWAY, "target": target}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": api_metadata(owner),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": naming.api_name(owner.name)},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [{"type": "ContainerResource", "containerResource": processor}],
        },
    }


def api_disruption_budget(owner: Owner) -> JsonObject:
    """PodDisruptionBudget: an emptied node takes one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": api_metadata(owner),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": api_selector(owner.name)},
        },
    }
