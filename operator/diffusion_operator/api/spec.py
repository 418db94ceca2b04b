"""`spec` of a DiffusionPipeline: only what is served exists here."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from diffusion_operator.api.base import (
    ApiModel,
    Duration,
    JsonObject,
    LabelMap,
    ObjectName,
    Quantity,
    Resources,
    ShortDuration,
    TargetName,
    Toleration,
    rule,
    rules,
)

StepCount = Annotated[int, Field(ge=1, le=64)]
AccessMode = Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]


class SecretKey(ApiModel):
    """A key of a Secret in the pipeline's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = Field(
        default="token", description="Key inside the Secret."
    )


class HuggingFaceSource(ApiModel):
    """A repository on a hub, pinned to one commit."""

    repo: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] = Field(
        description="organisation/name of the repository."
    )
    revision: Annotated[str, Field(max_length=64)] = Field(
        description="Commit of the repository: 40 lower-case hex digits; a branch or tag can move.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[0-9a-f]{40}$')",
                "revision must be a full commit id (40 lower-case hex digits), not a branch or tag: "
                "copy it from the repository's commit page",
            )
        ),
    )
    token_secret_ref: SecretKey | None = Field(
        default=None, description="Access token for private repositories; only the download step sees it."
    )


class ClaimSource(ApiModel):
    """A checkpoint in diffusers layout that already lies on a PersistentVolumeClaim."""

    claim_name: ObjectName = Field(description="Claim in the pipeline's namespace; it is mounted read-only.")
    path: Annotated[str, Field(max_length=512)] = Field(
        default=".",
        description="Folder of the checkpoint inside the claim.",
        json_schema_extra=rules(
            rule(
                "!self.startsWith('/') && !self.split('/').exists(p, p == '..')",
                "path must be relative to the claim's root and must not contain '..'",
            )
        ),
    )


class Source(ApiModel):
    """Where the checkpoint comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.huggingFace), has(self.persistentVolumeClaim)].exists_one(x, x)",
                "source needs exactly one of huggingFace and persistentVolumeClaim",
            )
        )
    )

    hugging_face: HuggingFaceSource | None = Field(default=None, description="A repository on a hub.")
    persistent_volume_claim: ClaimSource | None = Field(default=None, description="A folder on a claim.")


class Model(ApiModel):
    """The checkpoint that is served."""

    source: Source = Field(description="Where the checkpoint comes from.")


class Scheduler(ApiModel):
    """Sampler of the diffusion process. It is a table, not an engine: changing it compiles nothing."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.useKarrasSigmas) || !(self.type in ['DDIM', 'PNDM'])",
                "DDIM and PNDM know no useKarrasSigmas: leave it out, or use another type",
                fieldPath=".useKarrasSigmas",
            )
        )
    )

    type: Literal["DDIM", "Euler", "Heun", "PNDM", "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep"] = Field(
        default="DDIM", description="Name of the sampler; Heun calls the denoiser twice a step."
    )
    use_karras_sigmas: bool | None = Field(
        default=None,
        description="Noise levels of Karras et al. instead of evenly spaced timesteps. As the checkpoint says when "
        "left out.",
    )
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = Field(
        default=None, description="Which timesteps of the training are visited. As the checkpoint says when left out."
    )


class Range(ApiModel):
    """Smallest, usual and largest value."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self.min <= self.opt && self.opt <= self.max", "must be ordered: min <= opt <= max")
        )
    )

    min: int = Field(description="Smallest value that a request may use.")
    opt: int = Field(description="Value that the engine is tuned for; the default of a request.")
    max: int = Field(description="Largest value that a request may use.")


class BatchRange(Range):
    """How many images one engine call makes."""

    min: Annotated[int, Field(ge=1, le=128)] = Field(default=1, description="Smallest batch.")
    opt: Annotated[int, Field(ge=1, le=128)] = Field(default=4, description="Batch that the engine is tuned for.")
    max: Annotated[int, Field(ge=1, le=128)] = Field(default=8, description="Largest batch.")


PIXELS = Field(ge=32, le=4096, json_schema_extra=rules(rule("self % 8 == 0", "must be a multiple of 8 pixels")))


class PixelRange(Range):
    """Image sizes in pixels."""

    min: Annotated[int, PIXELS] = Field(default=256, description="Smallest size, pixels.")
    opt: Annotated[int, PIXELS] = Field(default=512, description="Size that the engine is tuned for, pixels.")
    max: Annotated[int, PIXELS] = Field(default=768, description="Largest size, pixels.")


class Shapes(ApiModel):
    """Sizes that the engines accept; a request outside is answered with an error."""

    batch: BatchRange = Field(default=BatchRange(), description="Images in one engine call.")
    height: PixelRange = Field(default=PixelRange(), description="Image height, pixels.")
    width: PixelRange = Field(default=PixelRange(), description="Image width, pixels.")


class Pipeline(ApiModel):
    """One task, served with one ensemble per step count."""

    task: Literal["generate"] = Field(description="What the ensemble does.")
    steps: Annotated[list[StepCount], Field(min_length=1, max_length=16)] = Field(
        default=[20],
        description="Step counts N; each becomes the ensemble `<task>_<N>_pipeline`.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Engines(ApiModel):
    """How the components become engines."""

    runtime: Literal["onnxruntime"] = Field(default="onnxruntime", description="What executes the engines.")
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "2Gi"}),
        description="Of the export and compile Jobs.",
    )
    timeout: Duration = Field(
        default="1h",
        description="How long one Job may run, such as 90s, 30m or 2h; waiting for a node does not count.",
    )


SAME_CLAIM = "!has(self.size) || !has(oldSelf.size)"
ADVICE = "create a claim of your own and name it in claimName"


def _fixed(field: str) -> JsonObject:
    """A field of a claim that cannot change once the claim exists."""
    both = f"has(self.{field}) == has(oldSelf.{field})"
    same = f"({both} && (!has(self.{field}) || self.{field} == oldSelf.{field}))"
    return rule(f"{SAME_CLAIM} || {same}", f"{field} of an existing claim cannot change: {ADVICE}")


class Storage(ApiModel):
    """The claim that holds the store: a given one, or one that is made (and deleted) with the pipeline."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.claimName) != has(self.size)",
                "storage needs exactly one of claimName (a claim that exists) and size (a claim to create)",
            ),
            rule(
                "!has(self.claimName) || (!has(self.storageClassName) && !has(self.accessModes))",
                "storageClassName and accessModes belong to size: a claim that exists has its own",
            ),
            rule(
                f"{SAME_CLAIM} || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
                "size can grow but never shrink: Kubernetes cannot make a volume smaller",
            ),
            _fixed("storageClassName"),
            _fixed("accessModes"),
        )
    )

    claim_name: ObjectName | None = Field(default=None, description="An existing claim in the pipeline's namespace.")
    size: Quantity | None = Field(default=None, description="Size of a claim that is created with the pipeline.")
    storage_class_name: ObjectName | None = Field(
        default=None, description="Class of the created claim; the cluster's default class when not given."
    )
    access_modes: Annotated[list[AccessMode], Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="Access modes of the created claim; [ReadWriteMany] when not given, since Jobs and "
        "serving pods on several nodes use it.",
    )


class Target(ApiModel):
    """One kind of node that the pipeline is served on, with a Deployment of its own."""

    name: TargetName = Field(description="Unique within the pipeline; part of the names of what is created.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Serving pods.")
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "1Gi"}), description="Of each serving pod."
    )
    node_selector: LabelMap | None = Field(default=None, description="Labels that the nodes must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = Field(
        default=None, description="Taints that the pods tolerate."
    )


class Batching(ApiModel):
    """How the server joins requests."""

    max_delay: ShortDuration = Field(
        default="0us", description="How long a request may wait for others, such as 500us or 5ms."
    )
    preferred: Annotated[list[Annotated[int, Field(ge=1, le=128)]], Field(max_length=16)] | None = Field(
        default=None,
        description="Batch sizes that are sent to the engine without waiting longer.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class EnvVar(ApiModel):
    """An environment variable of the server."""

    name: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")] = Field(
        description="Name of the variable."
    )
    value: Annotated[str, Field(max_length=4096)] = Field(description="Value of the variable.")


class Serving(ApiModel):
    """The Triton server."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="Image of the server; the operator's own when not given."
    )
    batching: Batching = Field(default=Batching(), description="How the server joins requests.")
    env: Annotated[list[EnvVar], Field(max_length=64)] | None = Field(
        default=None,
        description="More environment variables.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class DiffusionPipelineSpec(ApiModel):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.serving.batching.preferred) || "
                "self.serving.batching.preferred.all(b, b <= self.shapes.batch.max)",
                "preferred batch sizes must not be larger than shapes.batch.max",
                fieldPath=".serving.batching.preferred",
            ),
            rule(
                "self.scheduler.type != 'PNDM' || self.pipelines.all(p, p.steps.all(s, s <= 63))",
                "PNDM calls the denoiser once more than it has steps, 64 times at most: use at most 63 steps",
                fieldPath=".pipelines",
            ),
            rule(
                "self.scheduler.type != 'Heun' || self.pipelines.all(p, p.steps.all(s, s <= 32))",
                "Heun calls the denoiser twice a step, 64 times at most: use at most 32 steps",
                fieldPath=".pipelines",
            ),
        )
    )

    model: Model = Field(description="The checkpoint that is served.")
    scheduler: Scheduler = Field(default=Scheduler(), description="Sampler of the diffusion process.")
    precision: Literal["float32"] = Field(default="float32", description="Number format of weights and activations.")
    shapes: Shapes = Field(default=Shapes(), description="Sizes that the engines accept.")
    pipelines: Annotated[list[Pipeline], Field(min_length=1, max_length=8)] = Field(
        default=[Pipeline(task="generate")],
        description="What is served.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["task"]},
    )
    engines: Engines = Field(default=Engines(), description="How the components become engines.")
    storage: Storage = Field(default=Storage(size="20Gi"), description="The claim that holds the store.")
    targets: Annotated[list[Target], Field(min_length=1, max_length=16)] = Field(
        description="Kinds of nodes that the pipeline is served on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    serving: Serving = Field(default=Serving(), description="The Triton server.")
    suspend: bool = Field(
        default=False, description="Serve nothing and start no Job; what is built stays. Running Jobs finish."
    )
