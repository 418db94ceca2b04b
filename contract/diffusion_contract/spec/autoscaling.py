"""`spec.targets[].autoscaling`: how the number of serving pods follows the load."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ApiModel, ObjectName, Rule

Seconds = Annotated[int, Field(ge=0, le=3600)]


class ScalingPolicy(ApiModel):
    """Limit of the change within a period, as in a HorizontalPodAutoscaler."""

    type: Literal["Pods", "Percent"] = Field(description="Unit of value: pods, or percent of the current pods.")
    value: Annotated[int, Field(ge=1, le=1000)] = Field(description="Maximum change within the period.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(description="Period, seconds.")


class ScalingRules(ApiModel):
    """Scaling in one direction, as in a HorizontalPodAutoscaler."""

    stabilization_window_seconds: Seconds | None = Field(
        default=None,
        description="Stabilization window, seconds: the most conservative recommendation within it is used.",
    )
    policies: Annotated[list[ScalingPolicy], Field(min_length=1, max_length=8)] | None = Field(
        default=None, description="Limits; the one that allows the largest change is used."
    )


class ScalingBehavior(ApiModel):
    """Scaling behavior in both directions; defaults to Kubernetes' values."""

    scale_up: ScalingRules | None = Field(default=None, description="Scaling up.")
    scale_down: ScalingRules | None = Field(default=None, description="Scaling down.")


OWN_METADATA = ("serverAddress", "query", "threshold")
"""Metadata of the trigger that has fields of its own, or that the operator writes."""


class KedaAuthentication(ApiModel):
    """Where KEDA finds credentials for Prometheus."""

    name: ObjectName = Field(description="Name of the object.")
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] = Field(
        default="TriggerAuthentication",
        description="TriggerAuthentication in the pipeline's namespace, or ClusterTriggerAuthentication.",
    )


class KedaOptions(ApiModel):
    """KEDA's Prometheus scaler."""

    server_address: Annotated[str, Field(max_length=512, pattern=r"^https?://\S+$")] = Field(
        description="Address of Prometheus, such as http://prometheus.monitoring:9090."
    )
    activation_query: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="PromQL that is greater than 0 while requests come in, measured in front of the pods (at a "
        "gateway): pods that do not exist report no waiting requests. Required for minReplicas 0.",
    )
    authentication_ref: KedaAuthentication | None = Field(
        default=None, description="Credentials for Prometheus; the metadata authModes usually belongs to it."
    )
    metadata: (
        Annotated[
            dict[str, Annotated[str, Field(max_length=2048)]],
            Field(max_length=32),
            Rule(
                f"self.all(k, !(k in {list(OWN_METADATA)}))",
                "serverAddress is a field of keda, and the operator writes query and threshold: leave them out",
                lambda metadata: not set(OWN_METADATA) & set(metadata),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="More metadata of the Prometheus trigger, such as authModes, awsRegion, customHeaders or "
        "ignoreNullValues; all values are texts.",
    )
    polling_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30, description="Polling interval while there is no pod, seconds; part of every cold start."
    )
    cooldown_period_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=300, description="Time without load until the last pod is removed, seconds (minReplicas 0)."
    )


class Autoscaling(ApiModel):
    """Scales the serving pods with the load; replicas is ignored then."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be larger than maxReplicas",
            lambda self: self.min_replicas <= self.max_replicas,
        ),
        Rule(
            "(self.provider == 'keda') == has(self.keda)",
            "provider keda needs the field keda (with serverAddress), and only that provider may have it",
            lambda self: (self.provider == "keda") == (self.keda is not None),
            ".keda",
        ),
        Rule(
            "self.minReplicas > 0 || (has(self.keda) && has(self.keda.activationQuery))",
            "minReplicas 0 needs provider keda and keda.activationQuery: a HorizontalPodAutoscaler cannot scale "
            "to zero, and pods that do not exist report no load",
            lambda self: self.min_replicas > 0 or (self.keda is not None and self.keda.activation_query is not None),
            ".minReplicas",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(default=1, description="Minimum number of pods.")
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(description="Maximum number of pods.")
    pending_steps_per_replica: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=8,
        description="Queued denoiser steps per pod (pending requests of the model 5_denoiser); above this "
        "the target is scaled up.",
    )
    provider: Literal["hpa", "keda"] = Field(
        default="hpa",
        description="hpa: a HorizontalPodAutoscaler, which needs an adapter for custom metrics; keda: a ScaledObject.",
    )
    keda: KedaOptions | None = Field(default=None, description="Options of provider keda.")
    behavior: ScalingBehavior | None = Field(default=None, description="Scaling behavior in both directions.")
