"""`spec.targets[].autoscaling`: how the number of serving pods follows the load."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ApiModel, Rule

Seconds = Annotated[int, Field(ge=0, le=3600)]


class ScalingPolicy(ApiModel):
    """How much may change within a time, as in a HorizontalPodAutoscaler."""

    type: Literal["Pods", "Percent"] = Field(description="Whether value counts pods or percent of the present pods.")
    value: Annotated[int, Field(ge=1, le=1000)] = Field(description="Largest change.")
    period_seconds: Annotated[int, Field(ge=1, le=1800)] = Field(description="Within this time, seconds.")


class ScalingRules(ApiModel):
    """How fast the number of pods goes in one direction, as in a HorizontalPodAutoscaler."""

    stabilization_window_seconds: Seconds | None = Field(
        default=None, description="The most careful wish of this time counts, seconds."
    )
    policies: Annotated[list[ScalingPolicy], Field(min_length=1, max_length=8)] | None = Field(
        default=None, description="Limits; the one that allows the larger change counts."
    )


class Behavior(ApiModel):
    """How fast the number of pods changes; Kubernetes' own defaults where left out."""

    scale_up: ScalingRules | None = Field(default=None, description="Towards more pods.")
    scale_down: ScalingRules | None = Field(default=None, description="Towards fewer pods.")


class Keda(ApiModel):
    """What KEDA's Prometheus scaler asks."""

    server_address: Annotated[str, Field(max_length=512, pattern=r"^https?://\S+$")] = Field(
        description="Address of Prometheus, such as http://prometheus.monitoring:9090."
    )
    activation_query: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="PromQL that is greater than 0 while requests come in, measured in front of the pods (at a "
        "gateway): pods that do not exist cannot say that somebody waits for them. Needed for minReplicas 0.",
    )
    polling_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30, description="How often KEDA asks while there is no pod, seconds: part of every cold start."
    )
    cooldown_period_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=300, description="Time without load until the last pod goes, seconds (minReplicas 0)."
    )


class Autoscaling(ApiModel):
    """How the number of serving pods follows the load; replicas does not count then."""

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

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(default=1, description="Fewest pods.")
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(description="Most pods.")
    pending_steps_per_replica: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=8,
        description="Denoiser steps that may wait per pod (pending requests of the model 5_denoiser); above that "
        "there are to be more pods.",
    )
    provider: Literal["hpa", "keda"] = Field(
        default="hpa",
        description="hpa: a HorizontalPodAutoscaler, which needs an adapter for custom metrics; keda: a ScaledObject.",
    )
    keda: Keda | None = Field(default=None, description="For provider keda.")
    behavior: Behavior | None = Field(default=None, description="How fast the number of pods changes.")
