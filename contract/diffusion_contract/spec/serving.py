"""The Triton server."""

from typing import Annotated

from pydantic import Field

from diffusion_contract.base import BY_NAME, SET, ApiModel, ImageName, ObjectName, Rule, ShortDuration
from diffusion_contract.spec.pod_template import ServingPodTemplate

POD_FIELD = (
    r"^(metadata[.](name|namespace|uid|(labels|annotations)\['[-A-Za-z0-9_./]+'\])"
    r"|spec[.](nodeName|serviceAccountName)|status[.](hostIP|hostIPs|podIP|podIPs))$"
)
"""The fields of a pod that Kubernetes gives to a container's variables."""

BatchSize = Annotated[int, Field(ge=1, le=128)]


class Batching(ApiModel):
    """Dynamic batching, as in Triton."""

    max_queue_delay: ShortDuration = Field(
        default="0us", description="Maximum time a request waits for a batch, such as 500us or 5ms."
    )
    preferred_batch_sizes: Annotated[list[BatchSize], Field(max_length=16), SET] | None = Field(
        default=None, description="Batch sizes that are sent to the engine without further delay."
    )
    take_turns: bool = Field(
        default=True,
        description="Whether denoiser and scheduler step take turns, so that few requests are joined; false where "
        "there always are at least twice as many as a batch holds.",
    )
    priorities: bool = Field(
        default=False,
        description="Whether requests of priority 1, which is the default, are served before those of "
        "priority 2; batches of few requests are smaller then.",
    )


class Cuda(ApiModel):
    """How Triton runs the TensorRT engines of the denoising loop; ONNX Runtime ignores it."""

    graphs: bool = Field(
        default=True,
        description="Whether every batch size of the tuned image size is launched as one CUDA graph, captured when the "
        "model is loaded; other image sizes are launched kernel by kernel.",
    )
    busy_wait_events: bool = Field(
        default=True,
        description="Whether a thread polls for the end of a call instead of being woken up; it takes up to one CPU "
        "core while the GPU works.",
    )


RESERVED_VARIABLES = ("HOME", "POD_UID", "DIFFUSION_PIPELINE", "NVIDIA_DRIVER_CAPABILITIES")
"""Variables of the server that the operator sets itself."""

VariableName = Annotated[
    str,
    Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"),
    Rule(
        f"!(self in {list(RESERVED_VARIABLES)})",
        f"the operator sets {', '.join(RESERVED_VARIABLES)} itself: use another name",
        lambda name: name not in RESERVED_VARIABLES,
    ),
]


class KeyRef(ApiModel):
    """A key of a Secret or ConfigMap in the pipeline's namespace."""

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        description="Key in it."
    )
    optional: bool | None = Field(
        default=None, description="Whether the server starts without the variable when there is no such key."
    )


class FieldRef(ApiModel):
    """A field of the serving pod."""

    field_path: Annotated[str, Field(max_length=512, pattern=POD_FIELD)] = Field(
        description="Such as spec.nodeName, status.podIP or metadata.labels['team']."
    )


class EnvVarSource(ApiModel):
    """Where a variable's value comes from, as in a pod."""

    rules = (
        Rule(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].exists_one(x, x)",
            "valueFrom needs exactly one of secretKeyRef, configMapKeyRef and fieldRef",
            lambda self: (self.secret_key_ref, self.config_map_key_ref, self.field_ref).count(None) == 2,  # noqa: PLR2004 - of 3
        ),
    )

    secret_key_ref: KeyRef | None = Field(default=None, description="Key of a Secret.")
    config_map_key_ref: KeyRef | None = Field(default=None, description="Key of a ConfigMap.")
    field_ref: FieldRef | None = Field(default=None, description="Field of the pod.")


class EnvVar(ApiModel):
    """An environment variable of the server."""

    rules = (
        Rule(
            "has(self.value) != has(self.valueFrom)",
            "a variable needs exactly one of value and valueFrom",
            lambda self: (self.value is None) != (self.value_from is None),
        ),
    )

    name: VariableName = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=4096)] | None = Field(default=None, description="Value of the variable.")
    value_from: EnvVarSource | None = Field(default=None, description="Where the value comes from instead.")


class Tracing(ApiModel):
    """Traces of requests, by the OpenTelemetry exporters of Triton and the images API."""

    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://[^\s,]+$")] = Field(
        description="Address of an OTLP collector over HTTP, such as http://collector.monitoring:4318/v1/traces."
    )
    rate: Annotated[int, Field(ge=1, le=1000000)] = Field(
        default=1000, description="One of so many requests is traced; 1 traces all."
    )


class Serving(ApiModel):
    """The Triton server."""

    image: ImageName | None = Field(default=None, description="Image of the server; the operator's own when not given.")
    batching: Batching = Field(default=Batching(), description="How the server joins requests.")
    cuda: Cuda = Field(default=Cuda(), description="How the server launches TensorRT engines.")
    env: Annotated[list[EnvVar], Field(max_length=64), BY_NAME] | None = Field(
        default=None, description="More environment variables."
    )
    tracing: Tracing | None = Field(
        default=None,
        description="Traces of requests, through the images API and Triton; none without it. Changing it makes a new "
        "revision.",
    )
    pod_template: ServingPodTemplate | None = Field(
        default=None,
        description="Anything else that is added to the serving pods: a strategic merge patch. Changing it makes a new "
        "revision.",
    )
