"""`status` of a DiffusionPipeline: what is seen, never what is decided on."""

from typing import Annotated, Literal

from pydantic import Field

from diffusion_contract.base import ApiModel
from diffusion_contract.spec.garbage_collection import GarbageCollectionStatus

State = Literal["Waiting", "Queued", "Pending", "Running", "Ready", "Failed"]
Digest = Annotated[str, Field(max_length=64)]


class Condition(ApiModel):
    """One aspect of the pipeline, as a Kubernetes condition."""

    type: Annotated[str, Field(max_length=64)] = Field(description="Which aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="True is good.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why, as one word.")
    message: Annotated[str, Field(max_length=2048)] = Field(description="Why, and what to do about it.")
    observed_generation: int = Field(description="Generation of the spec that this was said about.")
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )


class BuildStatus(ApiModel):
    """One artifact on its way."""

    state: State = Field(description="How far it is.")
    digest: Digest | None = Field(default=None, description="Name of the artifact in the store.")
    size_bytes: int | None = Field(default=None, description="Size of the artifact, bytes.")
    seconds: float | None = Field(default=None, description="How long building it took.")
    last_seconds: float | None = Field(
        default=None, description="How long it took the last time that it was really built, for the same component."
    )
    expected_at: str | None = Field(
        default=None,
        description="When it should be done, if it takes as long as the last time.",
        json_schema_extra={"format": "date-time"},
    )
    cached: bool | None = Field(default=None, description="True when the store already had it.")
    job: Annotated[str, Field(max_length=63)] | None = Field(default=None, description="Job that builds it.")
    started_at: str | None = Field(
        default=None, description="When the Job started.", json_schema_extra={"format": "date-time"}
    )
    message: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="What it waits for, or why it failed."
    )


class SourceStatus(BuildStatus):
    """The checkpoint in the store."""

    pipeline_class: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Class that the checkpoint's model_index.json names."
    )


class ComponentStatus(BuildStatus):
    """One exported component, and its engines."""

    skus: dict[str, BuildStatus] = Field(
        default={}, description="Engines of the component, by SKU (`cpu` or a GPU product)."
    )


class CheckStatus(BuildStatus):
    """The comparison of the repository's pictures with those of diffusers."""

    worst_psnr: float | None = Field(
        default=None, alias="worstPSNR", description="Of all ensembles, dB; higher is better."
    )
    min_psnr: float | None = Field(
        default=None, alias="minPSNR", description="What is asked for with this precision, dB."
    )
    worst_latent_error: float | None = Field(default=None, description="Largest difference of a latent.")


class AnalysisStatus(ApiModel):
    """What is known about a canary."""

    verdict: Literal["Pass", "Fail", "Inconclusive"] = Field(description="Inconclusive: too little is known yet.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why, as one word.")
    message: Annotated[str, Field(max_length=1024)] = Field(description="Why, with the numbers.")
    numbers: dict[str, float] = Field(
        default={}, description="What was compared: counts of requests, ratios, seconds, dB."
    )


class ImageComparisonStatus(BuildStatus):
    """The comparison of a canary's pictures with those of the stable revision; the digest names both in the store."""

    worst_psnr: float | None = Field(
        default=None, alias="worstPSNR", description="Least likeness of a pair of pictures, dB."
    )
    worst_ssim: float | None = Field(
        default=None, alias="worstSSIM", description="Least structural similarity of a pair."
    )
    color_shift: float | None = Field(default=None, description="Largest difference of the colours of a pair.")


class VariantStatus(ApiModel):
    """One side of an experiment on one target; numbers since all sides together have their present revisions."""

    name: Annotated[str, Field(max_length=20)] = Field(description="Name of the variant; `stable` is the pipeline.")
    revision: Annotated[str, Field(max_length=8)] | None = Field(
        default=None, description="What it serves, or is to serve."
    )
    weight: int = Field(default=0, description="Share of the requests that it gets now, percent.")
    replicas: int = Field(default=0, description="Its pods that are wanted.")
    ready_replicas: int = Field(default=0, description="Its pods that are ready.")
    requests: int = Field(default=0, description="Requests that it has had.")
    error_ratio: float | None = Field(default=None, description="Share of them that failed, 0 to 1.")
    p50_seconds: float | None = Field(default=None, description="Median latency of those answered, seconds.")
    p95_seconds: float | None = Field(default=None, description="95th percentile of it, seconds.")
    step_seconds: float | None = Field(default=None, description="Mean time of a denoiser step, seconds.")
    mean_batch: float | None = Field(default=None, description="Mean pictures in one call of the denoiser.")


class TargetStatus(ApiModel):
    """What is served on one target."""

    name: str = Field(description="Name of the target.")
    repository: BuildStatus = Field(description="The Triton model repository.")
    check: CheckStatus = Field(default=CheckStatus(state="Waiting"), description="Whether it draws what it should.")
    estimated_gpu_memory_bytes: int | None = Field(
        default=None,
        alias="estimatedGPUMemoryBytes",
        description="GPU memory that a pod should need, bytes, as the builder estimates it.",
    )
    gpu_memory_bytes: int | None = Field(
        default=None, description="GPU memory of the product or MIG slice, bytes, where it is known."
    )
    warning: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="What may keep the servers from starting: a GPU that is too small."
    )
    stable_revision: str | None = Field(default=None, description="Revision that has the traffic.")
    desired_revision: str | None = Field(default=None, description="Revision that is being started.")
    canary_revision: str | None = Field(default=None, description="Revision that is being judged, or was taken back.")
    canary_weight: int | None = Field(
        default=None, description="Share of the requests that the canary gets, percent; a goal when pods decide."
    )
    canary_ready_replicas: int | None = Field(default=None, description="Pods of the canary that are ready.")
    phase: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="Phase of the canary: ImageComparison, Step, Promoting or Rejected."
    )
    step: int | None = Field(default=None, description="Step of the rollout that the canary is in, from 1.")
    analysis: AnalysisStatus | None = Field(default=None, description="What is known about the canary.")
    image_comparison: ImageComparisonStatus | None = Field(
        default=None, description="The comparison of the canary's pictures."
    )
    variants: list[VariantStatus] | None = Field(
        default=None,
        description="The experiment, side by side.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    history: list[str] | None = Field(
        default=None, description="Earlier revisions that spec.rollout.rollbackTo can name, oldest first."
    )
    replicas: int = Field(default=0, description="Pods of the stable revision that are wanted.")
    ready_replicas: int = Field(default=0, description="Pods of the stable revision that are ready.")
    url: str | None = Field(default=None, description="Address inside the cluster (HTTP).")
    message: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="What the serving pods wait for."
    )


class Summary(ApiModel):
    """Columns of `kubectl get`."""

    engines: str = Field(description="Engines that are ready, of all.")
    targets: str = Field(description="Targets that serve, of all.")
    canary: str | None = Field(
        default=None,
        description="Share of the canary and what is known about it; of an "
        "experiment the variants that have their whole share, of all.",
    )


class DiffusionPipelineStatus(ApiModel):
    """What is seen."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec that this is about.")
    conditions: list[Condition] = Field(
        default=[],
        description="Aspects of the pipeline; all positive.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    summary: Summary | None = Field(default=None, description="Columns of `kubectl get`.")
    source: SourceStatus | None = Field(default=None, description="The checkpoint in the store.")
    components: dict[str, ComponentStatus] = Field(default={}, description="Exported components, by name.")
    targets: list[TargetStatus] = Field(
        default=[],
        description="What is served.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    garbage_collection: GarbageCollectionStatus | None = Field(
        default=None, description="The last garbage collection of the store."
    )
    ensembles: list[str] = Field(default=[], description="Names of the models that a client asks for.")
