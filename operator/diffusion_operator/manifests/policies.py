"""What decides about the number of serving pods of a target: its autoscaler and its PodDisruptionBudget."""

from diffusion_contract.enums import Component
from diffusion_contract.spec.autoscaling import Autoscaling, KedaOptions
from diffusion_contract.tensors import MODEL_NAMES
from diffusion_operator import digests, naming
from diffusion_operator.json_objects import JsonObject
from diffusion_operator.manifests.common import Owner, metadata, to_manifest

DENOISER = MODEL_NAMES[Component.DENOISER]
SERIES = "nv_inference_pending_request_count"
PODS_METRIC = "diffusion_pending_denoiser_requests"
"""Name under which the metrics adapter shows Triton's pending requests of the denoiser, per pod."""


def autoscaler(owner: Owner, target: str, revision: str, scaling: Autoscaling) -> JsonObject:
    """HorizontalPodAutoscaler, or ScaledObject of KEDA, that scales the revision's Deployment.

    The ensemble's own pending count stays near zero: what waits are the denoiser's steps. The mean of a minute
    counts, since between two batches the gauge of a server that never rests says 0: a quarter of the samples did.
    """
    deployment = naming.revision_name(owner.name, target, revision)
    labels = naming.target_labels(owner.name, target)
    head = metadata(naming.target_service_name(owner.name, target), owner, labels)
    limits: JsonObject = {"minReplicas": scaling.min_replicas, "maxReplicas": scaling.max_replicas}
    if scaling.keda is None:
        return _horizontal(head, deployment, scaling, limits)
    return _scaled_object(head, deployment, scaling, scaling.keda)


def autoscaler_kind(scaling: Autoscaling) -> str:
    """Kind of the object."""
    return "HorizontalPodAutoscaler" if scaling.keda is None else "ScaledObject"


def disruption_budget(owner: Owner, target: str) -> JsonObject:
    """PodDisruptionBudget over the pods of all revisions of the target: an emptied node takes one pod at a time.

    One pod may always go: with a single replica anything stricter would keep its node from ever being emptied.
    """
    labels = naming.target_labels(owner.name, target)
    selector = {naming.PIPELINE: owner.name, naming.TARGET: target, naming.ROLE: naming.SERVING}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(naming.target_service_name(owner.name, target), owner, labels),
        "spec": {
            "maxUnavailable": 1,
            # A pod that does not answer anyway must not keep its node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector},
        },
    }


def _horizontal(head: JsonObject, deployment: str, scaling: Autoscaling, limits: JsonObject) -> JsonObject:
    target = {"type": "AverageValue", "averageValue": str(scaling.pending_steps_per_replica)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": head,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
            **limits,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": PODS_METRIC}, "target": target}}],
            **_behavior(scaling),
        },
    }


def _scaled_object(head: JsonObject, deployment: str, scaling: Autoscaling, keda: KedaOptions) -> JsonObject:
    # Pods of every revision of the target: a canary's load counts too.
    # The length keeps out those of a target whose name begins with this one's and a dash.
    pods = f"{head['labels'][naming.PIPELINE]}-{head['labels'][naming.TARGET]}-[0-9a-f]{{{digests.REVISION_LENGTH}}}-.*"
    labels = f'model="{DENOISER}",namespace="{head["namespace"]}",pod=~"{pods}"'
    spec: JsonObject = {
        "scaleTargetRef": {"name": deployment},
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "pollingInterval": keda.polling_interval_seconds,
        "cooldownPeriod": keda.cooldown_period_seconds,
        "triggers": [
            _trigger(keda, f"sum(avg_over_time({SERIES}{{{labels}}}[1m]))", scaling.pending_steps_per_replica)
        ],
    }
    if keda.activation_query is not None:
        # Only switches between none and some: one pod is enough for any value of it.
        spec["triggers"].append(_trigger(keda, f"clamp_max({keda.activation_query}, 1)", 1))
    if behavior := _behavior(scaling):
        spec["advanced"] = {"horizontalPodAutoscalerConfig": behavior}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": head, "spec": spec}


def _trigger(keda: KedaOptions, query: str, threshold: int) -> JsonObject:
    details = {
        **(keda.metadata or {}),
        "serverAddress": keda.server_address,
        "query": query,
        "threshold": str(threshold),
    }
    trigger: JsonObject = {"type": "prometheus", "metadata": details}
    if keda.authentication_ref is not None:
        trigger["authenticationRef"] = to_manifest(keda.authentication_ref)
    return trigger


def _behavior(scaling: Autoscaling) -> JsonObject:
    return {"behavior": to_manifest(scaling.behavior)} if scaling.behavior is not None else {}
