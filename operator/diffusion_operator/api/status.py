"""`status` of a DiffusionPipeline: observed state; nothing is decided by it."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ApiModel
from diffusion_contract.spec.garbage_collection import GarbageCollectionStatus

State = Literal["Waiting", "Queued", "Pending", "Running", "Ready", "Failed"]
Message = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=64)]
Digest = Annotated[str, Field(max_length=64)]


class Condition(ApiModel):
    """One aspect of the pipeline, as a Kubernetes condition."""

    type: Word = Field(description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Status of the condition: True, False or Unknown.")
    reason: Word = Field(description="Reason for the last transition, one CamelCase word.")
    message: Annotated[str, Field(max_length=2048)] = Field(description="Human-readable details and what to do.")
    observed_generation: int = Field(description="Generation of the spec that the condition is based on.")
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )


class BuildStatus(ApiModel):
    """Build of one artifact."""

    state: State = Field(description="State of the build.")
    digest: Digest | None = Field(default=None, description="Name of the artifact in the store.")
    size_bytes: int | None = Field(default=None, description="Size of the artifact, bytes.")
    seconds: float | None = Field(default=None, description="Duration of the build, seconds.")
    last_seconds: float | None = Field(
        default=None, description="Duration of the last build of the same component that was not cached, seconds."
    )
    expected_at: str | None = Field(
        default=None,
        description="Expected completion time, by the duration of the last build.",
        json_schema_extra={"format": "date-time"},
    )
    cached: bool | None = Field(default=None, description="True if the artifact was in the store already.")
    job: Annotated[str, Field(max_length=63)] | None = Field(default=None, description="Job that builds it.")
    started_at: str | None = Field(
        default=None, description="When the Job started.", json_schema_extra={"format": "date-time"}
    )
    message: Message | None = Field(default=None, description="Details of the state.")


class SourceStatus(BuildStatus):
    """The checkpoint in the store."""

    pipeline_class: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Pipeline class of the checkpoint's model_index.json."
    )


class ComponentStatus(BuildStatus):
    """One exported component, and its engines."""

    skus: dict[str, BuildStatus] = Field(
        default={}, description="Engines of the component, by SKU (`cpu` or a GPU product)."
    )


class CheckStatus(BuildStatus):
    """The comparison of the repository's images with those of diffusers."""

    worst_psnr: float | None = Field(
        default=None, alias="worstPSNR", description="Minimum PSNR over all ensembles, dB; higher is better."
    )
    min_psnr: float | None = Field(default=None, alias="minPSNR", description="Required PSNR for this precision, dB.")
    worst_latent_error: float | None = Field(default=None, description="Maximum difference of a latent.")
    acceleration_psnr: float | None = Field(
        default=None,
        alias="accelerationPSNR",
        description="Price of spec.acceleration: minimum PSNR of images with it against images without, dB.",
    )


class AnalysisStatus(ApiModel):
    """Latest verdict about the canary."""

    verdict: Literal["Pass", "Fail", "Inconclusive"] = Field(
        description="Pass, Fail, or Inconclusive while there are too few requests."
    )
    reason: Word = Field(description="Reason of the verdict, one CamelCase word.")
    message: Message = Field(description="Details, with the numbers.")
    numbers: dict[str, float] = Field(
        default={}, description="Numbers of the verdict: counts of requests, ratios, seconds, dB."
    )


class ImageComparisonStatus(BuildStatus):
    """Comparison of the canary's images with those of the stable revision; the digest names both in the store."""

    worst_psnr: float | None = Field(default=None, alias="worstPSNR", description="Minimum PSNR of an image pair, dB.")
    worst_ssim: float | None = Field(default=None, alias="worstSSIM", description="Minimum SSIM of an image pair.")
    color_shift: float | None = Field(default=None, description="Maximum color difference of an image pair.")


class VariantStatus(ApiModel):
    """The stable revision or a variant of an experiment; numbers since all of them have their present revisions."""

    name: Annotated[str, Field(max_length=20)] = Field(description="Name of the variant; `stable` is the pipeline.")
    revision: Annotated[str, Field(max_length=8)] | None = Field(
        default=None, description="Revision that it serves or will serve."
    )
    weight: int = Field(default=0, description="Percent of the requests that it gets.")
    replicas: int = Field(default=0, description="Desired replicas.")
    ready_replicas: int = Field(default=0, description="Ready replicas.")
    requests: int = Field(default=0, description="Requests received.")
    error_ratio: float | None = Field(default=None, description="Ratio of failed requests, 0 to 1.")
    p50_seconds: float | None = Field(default=None, description="Median latency of answered requests, seconds.")
    p95_seconds: float | None = Field(default=None, description="95th percentile of the latency, seconds.")
    step_seconds: float | None = Field(default=None, description="Mean denoiser step latency, seconds.")
    mean_batch: float | None = Field(default=None, description="Mean batch size of the denoiser.")


class TargetStatus(ApiModel):
    """State of one target."""

    name: str = Field(description="Name of the target.")
    repository: BuildStatus = Field(description="The Triton model repository.")
    check: CheckStatus = Field(
        default=CheckStatus(state="Waiting"), description="Parity of the repository with diffusers."
    )
    estimated_gpu_memory_bytes: int | None = Field(
        default=None,
        alias="estimatedGPUMemoryBytes",
        description="Estimated GPU memory of a serving pod, bytes.",
    )
    gpu_memory_bytes: int | None = Field(
        default=None, description="GPU memory of the product or MIG slice, bytes, where it is known."
    )
    warning: Message | None = Field(default=None, description="Insufficient GPU memory, by the estimate.")
    stable_revision: str | None = Field(default=None, description="Revision that gets the traffic.")
    desired_revision: str | None = Field(default=None, description="Revision that is being rolled out.")
    canary_revision: str | None = Field(default=None, description="Canary under analysis, or rejected.")
    canary_weight: int | None = Field(
        default=None, description="Percent of the requests that the canary gets; approximate without a Gateway."
    )
    canary_ready_replicas: int | None = Field(default=None, description="Ready replicas of the canary.")
    phase: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Phase of the canary: ImageComparison, Step, Promoting or Rejected."
    )
    step: int | None = Field(default=None, description="Step of the rollout that the canary is in, from 1.")
    analysis: AnalysisStatus | None = Field(default=None, description="Latest verdict about the canary.")
    image_comparison: ImageComparisonStatus | None = Field(
        default=None, description="The comparison of the canary's images."
    )
    variants: list[VariantStatus] | None = Field(
        default=None,
        description="Stable revision and variants of the experiment.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    history: list[str] | None = Field(
        default=None, description="Earlier revisions for spec.rollout.rollbackTo, oldest first."
    )
    replicas: int = Field(default=0, description="Desired replicas of the stable revision.")
    ready_replicas: int = Field(default=0, description="Ready replicas of the stable revision.")
    url: str | None = Field(default=None, description="Address inside the cluster (HTTP).")
    message: Message | None = Field(default=None, description="Details of serving pods that are not ready.")


class ApiStatus(ApiModel):
    """State of the images API."""

    url: Annotated[str, Field(max_length=512)] = Field(description="Address inside the cluster (HTTP).")
    replicas: int = Field(default=0, description="Desired replicas.")
    ready_replicas: int = Field(default=0, description="Ready replicas.")


class Summary(ApiModel):
    """Columns of `kubectl get`."""

    engines: str = Field(description="Ready engines, of all.")
    targets: str = Field(description="Available targets, of all.")
    canary: str | None = Field(
        default=None,
        description="Weight and verdict of the canary; for an experiment, the variants with their full weight, of all.",
    )


class DiffusionPipelineStatus(ApiModel):
    """Observed state of the pipeline."""

    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that the status is based on."
    )
    conditions: list[Condition] = Field(
        default=[],
        description="Conditions of the pipeline; True is good for all of them.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    summary: Summary | None = Field(default=None, description="Columns of `kubectl get`.")
    source: SourceStatus | None = Field(default=None, description="The checkpoint in the store.")
    components: dict[str, ComponentStatus] = Field(default={}, description="Exported components, by name.")
    targets: list[TargetStatus] = Field(
        default=[],
        description="State of each target.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    api: ApiStatus | None = Field(default=None, description="The images API.")
    garbage_collection: GarbageCollectionStatus | None = Field(
        default=None, description="The last garbage collection of the store."
    )
    ensembles: list[str] = Field(default=[], description="Names of the served ensembles.")
