"""`spec` of a DiffusionPipeline: only what is served exists here."""

from typing import Annotated

from pydantic import ConfigDict, Field

from diffusion_contract.base import ApiModel, JsonObject, rule, rules
from diffusion_contract.spec.engines import ComponentPrecision, Engines, Precision, Shapes
from diffusion_contract.spec.experiment import Experiment, Variant, applied
from diffusion_contract.spec.model import ClaimSource, HuggingFaceSource, Model, SecretKey, Source
from diffusion_contract.spec.rollout import Rollout
from diffusion_contract.spec.sampling import Pipeline, Scheduler
from diffusion_contract.spec.serving import Batching, EnvVar, Serving
from diffusion_contract.spec.storage import Storage
from diffusion_contract.spec.targets import Gpu, Target

__all__ = [
    "Batching",
    "ClaimSource",
    "DiffusionPipelineSpec",
    "Engines",
    "EnvVar",
    "Experiment",
    "Gpu",
    "HuggingFaceSource",
    "Model",
    "Pipeline",
    "Precision",
    "Rollout",
    "Scheduler",
    "SecretKey",
    "Serving",
    "Shapes",
    "Source",
    "Storage",
    "Target",
    "Variant",
    "applied",
]


def calls(scheduler: str, steps: int, why: str) -> tuple[JsonObject, ...]:
    """Rules for a scheduler that needs more calls of the denoiser than it has steps."""
    text = f"{why}, 64 times at most: use at most {steps} steps"
    few = f"self.pipelines.all(p, p.steps.all(s, s <= {steps}))"
    none = f"!self.rollout.experiment.variants.exists(v, has(v.scheduler) && v.scheduler.type == '{scheduler}')"
    others = f"!has(self.schedulers) || !self.schedulers.exists(i, i.type == '{scheduler}')"
    return (
        rule(f"!has(self.scheduler) || self.scheduler.type != '{scheduler}' || {few}", text, fieldPath=".pipelines"),
        rule(f"{others} || {few}", text, fieldPath=".schedulers"),
        rule(f"!has(self.rollout) || !has(self.rollout.experiment) || {none} || {few}", text, fieldPath=".rollout"),
    )


class DiffusionPipelineSpec(ApiModel):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.engines.runtime) || self.engines.runtime != 'tensorrt' || self.targets.all(t, has(t.gpu))",
                "runtime tensorrt needs a gpu in every target: add gpu.product, or leave engines.runtime out",
                fieldPath=".engines.runtime",
            ),
            rule(
                "!has(self.engines.runtime) || self.engines.runtime != 'onnxruntime' || "
                "self.targets.all(t, !has(t.gpu))",
                "runtime onnxruntime serves on CPUs: leave engines.runtime out to use TensorRT on targets with a gpu",
                fieldPath=".engines.runtime",
            ),
            rule(
                "self.precision != 'bfloat16' || self.targets.all(t, has(t.gpu))",
                "ONNX Runtime has no bfloat16 on a CPU: use float32 or float16, or only targets with a gpu",
                fieldPath=".precision",
            ),
            rule(
                "self.targets.exists(t, has(t.gpu)) || "
                "(!has(self.engines.optimizationLevel) && !has(self.engines.workspace))",
                "optimizationLevel and workspace are settings of TensorRT: no target has a gpu, leave them out",
                fieldPath=".engines",
            ),
            rule(
                "!has(self.serving.batching.preferred) || "
                "self.serving.batching.preferred.all(b, b <= self.shapes.batch.max)",
                "preferred batch sizes must not be larger than shapes.batch.max",
                fieldPath=".serving.batching.preferred",
            ),
            rule(
                "!has(self.scheduler) || !has(self.schedulers)",
                "use either scheduler or schedulers: the first of schedulers is the default",
                fieldPath=".schedulers",
            ),
            rule(
                "!has(self.rollout) || !has(self.rollout.experiment) || "
                "size(self.targets) * (size(self.rollout.experiment.variants) + 1) <= 16",
                "a route has room for 16 Services, and every variant needs one on every target: use fewer of them",
                fieldPath=".rollout.experiment",
            ),
            *calls("PNDM", 63, "PNDM calls the denoiser once more than it has steps"),
            *calls("Heun", 32, "Heun calls the denoiser twice a step"),
            rule(
                "self.pipelines.all(p, !has(p.features) || !('controlnet' in p.features) || "
                "has(self.model.controlNets))",
                "feature controlnet needs a ControlNet: add it to spec.model.controlNets",
                fieldPath=".pipelines",
            ),
            rule(
                "self.pipelines.all(p, !has(p.features) || !('ip_adapter' in p.features) || has(self.model.ipAdapter))",
                "feature ip_adapter needs an IP-Adapter: name it in spec.model.ipAdapter",
                fieldPath=".pipelines",
            ),
            rule(
                "self.pipelines.all(p, self.pipelines.exists_one(q, q.task == p.task && "
                "has(q.features) == has(p.features) && (!has(p.features) || (size(q.features) == size(p.features) && "
                "p.features.all(f, f in q.features)))))",
                "each task may be listed once with the same features: join the steps of both entries",
                fieldPath=".pipelines",
            ),
        )
    )

    model: Model = Field(description="The checkpoint that is served.")
    scheduler: Scheduler | None = Field(
        default=None, description="Sampler of the diffusion process; DDIM when neither it nor schedulers is given."
    )
    schedulers: Annotated[list[Scheduler], Field(min_length=1, max_length=16)] | None = Field(
        default=None,
        description="Instead of scheduler: samplers that a request may choose among by name (input `scheduler`). The "
        "first one is the default.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    precision: Precision = Field(default="float32", description="Number format of weights and activations.")
    component_precision: ComponentPrecision | None = Field(
        default=None,
        description="Another number format for single components.",
    )
    shapes: Shapes = Field(default=Shapes(), description="Sizes that the engines accept.")
    pipelines: Annotated[list[Pipeline], Field(min_length=1, max_length=8)] = Field(
        default=[Pipeline(task="generate")],
        description="What is served.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    engines: Engines = Field(default=Engines(), description="How the components become engines.")
    storage: Storage = Field(default=Storage(size="20Gi"), description="The claim that holds the store.")
    targets: Annotated[list[Target], Field(min_length=1, max_length=16)] = Field(
        description="Kinds of nodes that the pipeline is served on.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    serving: Serving = Field(default=Serving(), description="The Triton server.")
    rollout: Rollout | None = Field(
        default=None,
        description="How a new revision gets the traffic; all at once, as soon as it is ready, when not given.",
    )
    suspend: bool = Field(
        default=False,
        description="Serve nothing and run no Job: pods and unfinished Jobs go. What is built stays, and a Job that "
        "others need too goes on for them.",
    )

    @property
    def samplers(self) -> tuple[Scheduler, ...]:
        """What a request may choose among; the first one is the default."""
        return tuple(self.schedulers or ()) or (self.scheduler or Scheduler(),)
