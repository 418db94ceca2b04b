"""`spec` of a DiffusionPipeline: only what is served exists here."""

from typing import Annotated

from pydantic import Field

from diffusion_contract.base import ATOMIC, BY_NAME, ApiModel, JsonObject, Rule
from diffusion_contract.enums import DENOISERS, Component, Precision
from diffusion_contract.spec.acceleration import ACCELERATION_RULES, Acceleration
from diffusion_contract.spec.engines import ComponentPrecision, Engines, Shapes
from diffusion_contract.spec.experiment import Variant
from diffusion_contract.spec.images_api import ImagesApi
from diffusion_contract.spec.jobs import Jobs
from diffusion_contract.spec.model import Model
from diffusion_contract.spec.rollout import GatewayRef, Rollout
from diffusion_contract.spec.sampling import Pipeline, Scheduler
from diffusion_contract.spec.serving import Serving
from diffusion_contract.spec.storage import Storage
from diffusion_contract.spec.targets import Target

MAX_ROUTE_RULES = 16
"""Backends that a rule of an HTTPRoute has room for."""


def _calls(scheduler: str, steps: int, why: str) -> tuple[Rule, ...]:
    """Rules for a scheduler that needs more calls of the denoiser than it has steps."""
    text = f"{why}, 64 times at most: use at most {steps} steps"
    few = f"self.pipelines.all(p, p.steps.all(s, s <= {steps}))"
    is_variants = f"has(v.scheduler) && has(v.scheduler.type) && v.scheduler.type == '{scheduler}'"
    none = f"!self.rollout.experiment.variants.exists(v, {is_variants})"
    unlisted = f"!has(self.schedulers) || !self.schedulers.exists(i, has(i.type) && i.type == '{scheduler}')"

    def is_short(self: "DiffusionPipelineSpec") -> bool:
        return all(count <= steps for item in self.pipelines for count in item.steps)

    def uses(*schedulers: Scheduler | None) -> bool:
        return any(item is not None and item.type == scheduler for item in schedulers)

    return (
        Rule(
            f"!has(self.scheduler) || !has(self.scheduler.type) || self.scheduler.type != '{scheduler}' || {few}",
            text,
            lambda self: not uses(self.scheduler) or is_short(self),
            ".pipelines",
        ),
        Rule(
            f"{unlisted} || {few}",
            text,
            lambda self: not uses(*(self.schedulers or ())) or is_short(self),
            ".schedulers",
        ),
        Rule(
            f"!has(self.rollout) || !has(self.rollout.experiment) || {none} || {few}",
            text,
            lambda self: not uses(*(item.scheduler for item in self.variants)) or is_short(self),
            ".rollout",
        ),
    )


def _no_bfloat16() -> Rule:
    fields = [f"self.componentPrecision.{name}" for name in ComponentPrecision.model_fields]
    none = " && ".join(f"(!has({field}) || {field} != 'bfloat16')" for field in fields)
    return Rule(
        f"self.targets.all(t, has(t.gpu)) || !has(self.componentPrecision) || ({none})",
        "ONNX Runtime has no bfloat16 on a CPU: use float32 or float16, or only targets with a gpu",
        lambda self: self.gpus_only or Precision.BFLOAT16 not in self.precisions(),
        ".componentPrecision",
    )


def _has_second_encoder(variants: tuple[Variant, ...]) -> bool:
    overrides = (item.model.components for item in variants if item.model is not None)
    return any(item is not None and item.text_encoder_2 is not None for item in overrides)


_REFINER_RULES = (
    Rule(
        "!has(self.model.refiner) || self.pipelines.all(p, p.task == 'generate')",
        "with a strength a refiner would take over at another call in each request: with model.refiner use the task "
        "generate only",
        lambda self: self.model.refiner is None or all(item.task == "generate" for item in self.pipelines),
        ".pipelines",
    ),
    Rule(
        "!has(self.model.refiner) || self.pipelines.all(p, !has(p.features) || !('embeddings' in p.features))",
        "a refiner reads other embeddings: with model.refiner leave the feature embeddings out",
        lambda self: self.model.refiner is None or not self.serves("embeddings"),
        ".pipelines",
    ),
    Rule(
        "!has(self.model.refiner) || !has(self.acceleration)",
        "some calls are the refiner's, which has no acceleration: leave out one of both",
        lambda self: self.model.refiner is None or self.acceleration is None,
        ".acceleration",
    ),
)


def _is_listed_once(self: "DiffusionPipelineSpec") -> bool:
    entries = {(item.task, frozenset(item.features or ())) for item in self.pipelines}
    return len(entries) == len(self.pipelines)


def _has_room(self: "DiffusionPipelineSpec") -> bool:
    return not self.variants or len(self.targets) * (len(self.variants) + 1) <= MAX_ROUTE_RULES


def _api_rules() -> tuple[Rule, ...]:
    """Rules for spec.api beside the rest of the spec."""
    behind = "has(self.rollout) && has(self.rollout.traffic.gateway)"
    return (
        Rule(
            f"!has(self.api) || has(self.api.upstream) || !({behind})",
            "the weights of rollout.traffic.gateway are in its routes: name the Service of its proxy in api.upstream, "
            "so that requests of the API pass through them",
            lambda self: self.api is None or self.api.upstream is not None or self.traffic_gateway is None,
            ".api.upstream",
        ),
        Rule(
            f"!has(self.api) || !has(self.api.upstream) || ({behind})",
            "api.upstream is the proxy of rollout.traffic.gateway, which there is not: leave it out, and the API uses "
            "the pipeline's Service",
            lambda self: self.api is None or self.api.upstream is None or self.traffic_gateway is not None,
            ".api.upstream",
        ),
        Rule(
            "!has(self.api) || self.targets.all(t, t.name != 'api')",
            "the objects of spec.api have the names that those of a target api would have: give the target another "
            "name",
            lambda self: self.api is None or all(target.name != "api" for target in self.targets),
            ".targets",
        ),
    )


_DISTINCT_NAMES = Rule(
    "self.all(a, self.exists_one(b, (has(a.name) ? a.name : has(a.type) ? a.type.lowerAscii() : '') == "
    "(has(b.name) ? b.name : has(b.type) ? b.type.lowerAscii() : '')))",
    "requests choose a scheduler by name: give each entry another name",
    lambda schedulers: len({item.request_name for item in schedulers}) == len(schedulers),
)


def _without_sizes(schema: JsonObject) -> None:
    """The API server must not add ranges, which would stay when buckets are set later."""
    schema["default"] = {"batch": schema["default"]["batch"]}


class DiffusionPipelineSpec(ApiModel):
    """Desired state of the pipeline."""

    rules = (
        Rule(
            "!has(self.rollout) || self.rollout.surge == 1 || self.targets.all(t, !has(t.autoscaling))",
            "with surge 0 the operator scales the stable revision, and an autoscaler would start it again: leave "
            "autoscaling out of all targets, or use surge 1",
            lambda self: (
                self.rollout is None
                or self.rollout.surge == 1
                or all(target.autoscaling is None for target in self.targets)
            ),
            ".rollout.surge",
        ),
        Rule(
            "!has(self.engines.runtime) || self.engines.runtime != 'tensorrt' || self.targets.all(t, has(t.gpu))",
            "runtime tensorrt needs a gpu in every target: add gpu.product, or leave engines.runtime out",
            lambda self: self.engines.runtime != "tensorrt" or self.gpus_only,
            ".engines.runtime",
        ),
        Rule(
            "!has(self.engines.runtime) || self.engines.runtime != 'onnxruntime' || self.targets.all(t, !has(t.gpu))",
            "runtime onnxruntime serves on CPUs: leave engines.runtime out to use TensorRT on targets with a gpu",
            lambda self: self.engines.runtime != "onnxruntime" or all(target.gpu is None for target in self.targets),
            ".engines.runtime",
        ),
        Rule(
            "!has(self.precision) || self.precision != 'bfloat16' || self.targets.all(t, has(t.gpu))",
            "ONNX Runtime has no bfloat16 on a CPU: use float32 or float16, or only targets with a gpu",
            lambda self: self.precision is not Precision.BFLOAT16 or self.gpus_only,
            ".precision",
        ),
        _no_bfloat16(),
        Rule(
            "self.targets.exists(t, has(t.gpu)) || "
            "(!has(self.engines.optimizationLevel) && !has(self.engines.workspace))",
            "optimizationLevel and workspace are settings of TensorRT: no target has a gpu, leave them out",
            lambda self: not self.engines.tunes_tensorrt or any(target.gpu for target in self.targets),
            ".engines",
        ),
        Rule(
            "!has(self.serving.batching.preferredBatchSizes) || "
            "self.serving.batching.preferredBatchSizes.all(b, b <= self.shapes.batch.max)",
            "preferred batch sizes must not be larger than shapes.batch.max",
            lambda self: all(
                size <= self.shapes.batch.max for size in self.serving.batching.preferred_batch_sizes or ()
            ),
            ".serving.batching.preferredBatchSizes",
        ),
        Rule(
            "!has(self.scheduler) || !has(self.schedulers)",
            "use either scheduler or schedulers: the first of schedulers is the default",
            lambda self: self.scheduler is None or self.schedulers is None,
            ".schedulers",
        ),
        Rule(
            "!has(self.rollout) || !has(self.rollout.experiment) || "
            "size(self.targets) * (size(self.rollout.experiment.variants) + 1) <= 16",
            "a route has room for 16 Services, and every variant needs one on every target: use fewer of them",
            _has_room,
            ".rollout.experiment",
        ),
        *_calls("PNDM", 63, "PNDM calls the denoiser once more than it has steps"),
        *_calls("Heun", 32, "Heun calls the denoiser twice a step"),
        Rule(
            "self.pipelines.all(p, !has(p.features) || !('controlnet' in p.features) || "
            "(has(self.model.controlNets) && size(self.model.controlNets) > 0))",
            "feature controlnet needs a ControlNet: add it to spec.model.controlNets",
            lambda self: bool(self.model.control_nets) or not self.serves("controlnet"),
            ".pipelines",
        ),
        Rule(
            "self.pipelines.all(p, !has(p.features) || !('ip_adapter' in p.features) || has(self.model.ipAdapter))",
            "feature ip_adapter needs an IP-Adapter: name it in spec.model.ipAdapter",
            lambda self: self.model.ip_adapter is not None or not self.serves("ip_adapter"),
            ".pipelines",
        ),
        Rule(
            "!has(self.model.previewVae) || self.pipelines.exists(p, has(p.previews))",
            "only previews are decoded with previewVae: add previews to a pipeline, or leave it out",
            lambda self: self.model.preview_vae is None or any(item.previews for item in self.pipelines),
            ".model.previewVae",
        ),
        Rule(
            "(has(self.model.family) && self.model.family == 'StableDiffusionXL') || !has(self.rollout) || "
            "!has(self.rollout.experiment) || !self.rollout.experiment.variants.exists(v, has(v.model) && "
            "has(v.model.components) && has(v.model.components.text_encoder_2))",
            "a variant has text_encoder_2, but only StableDiffusionXL has a second text encoder: leave it out",
            lambda self: self.model.is_xl or not _has_second_encoder(self.variants),
            ".rollout.experiment",
        ),
        Rule(
            "self.pipelines.all(p, self.pipelines.exists_one(q, q.task == p.task && "
            "has(q.features) == has(p.features) && (!has(p.features) || (size(q.features) == size(p.features) && "
            "p.features.all(f, f in q.features)))))",
            "each task may be listed once with the same features: join the steps of both entries",
            _is_listed_once,
            ".pipelines",
        ),
        *_api_rules(),
        *ACCELERATION_RULES,
        *_REFINER_RULES,
    )

    model: Model = Field(description="The checkpoint that is served.")
    scheduler: Scheduler | None = Field(
        default=None, description="Noise scheduler. Defaults to that of the checkpoint, unless schedulers is set."
    )
    schedulers: Annotated[list[Scheduler], Field(min_length=1, max_length=16), ATOMIC, _DISTINCT_NAMES] | None = Field(
        default=None,
        description="Instead of scheduler: noise schedulers that requests select by name (input `scheduler`). The "
        "first one is the default.",
    )
    precision: Precision | None = Field(
        default=None,
        description="Number format of weights and activations. Defaults to float16 where every target has a gpu, else "
        "to float32.",
    )
    component_precision: ComponentPrecision | None = Field(
        default=None,
        description="Number format of individual components.",
    )
    shapes: Shapes = Field(
        default=Shapes(), description="Sizes that the engines accept.", json_schema_extra=_without_sizes
    )
    pipelines: Annotated[list[Pipeline], Field(min_length=1, max_length=16), ATOMIC] = Field(
        default=[Pipeline(task="generate")], description="Tasks, with the step counts of each."
    )
    acceleration: Acceleration | None = Field(
        default=None, description="Approximations that make images faster and different. None by default."
    )
    engines: Engines = Field(default=Engines(), description="Build options of the engines.")
    jobs: Jobs | None = Field(default=None, description="Placement and metadata of all Jobs.")
    storage: Storage = Field(default=Storage(size="20Gi"), description="The claim that holds the store.")
    targets: Annotated[list[Target], Field(min_length=1, max_length=16), BY_NAME] = Field(
        description="Targets: kinds of nodes that the pipeline is served on."
    )
    serving: Serving = Field(default=Serving(), description="The Triton server.")
    rollout: Rollout | None = Field(
        default=None,
        description="Rollout of new revisions. Defaults to all of the traffic at once, when the revision is ready.",
    )
    api: ImagesApi | None = Field(
        default=None,
        description="The images API of OpenAI in front of the pipeline, as `<pipeline>-api`. None without it.",
    )
    suspend: bool = Field(
        default=False,
        description="Serve nothing and run no Job: pods and unfinished Jobs are deleted. Artifacts are retained; Jobs "
        "shared with other pipelines keep running.",
    )

    @property
    def all_schedulers(self) -> tuple[Scheduler, ...]:
        """What a request may choose among; the first one is the default."""
        return tuple(self.schedulers or ()) or (self.scheduler or Scheduler(),)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Those of an experiment."""
        experiment = self.rollout.experiment if self.rollout is not None else None
        return tuple(experiment.variants) if experiment is not None else ()

    @property
    def traffic_gateway(self) -> GatewayRef | None:
        """Gateway whose routes split the requests."""
        return self.rollout.traffic.gateway if self.rollout is not None else None

    @property
    def gpus_only(self) -> bool:
        """Whether every target has a GPU."""
        return all(target.gpu is not None for target in self.targets)

    def serves(self, feature: str) -> bool:
        """Whether an ensemble has this feature."""
        return any(feature in (item.features or ()) for item in self.pipelines)

    def precision_of(self, component: Component) -> Precision:
        """Number format of a component's weights and arithmetic; the scheduler step is always exact."""
        if component is Component.SCHEDULER_STEP:
            return Precision.FLOAT32
        holder = Component.DENOISER if component in DENOISERS else component
        own = self.component_precision.of(holder) if self.component_precision is not None else None
        return own or self.precision or (Precision.FLOAT16 if self.gpus_only else Precision.FLOAT32)

    def precisions(self) -> frozenset[Precision]:
        """All number formats that components have."""
        return frozenset(self.precision_of(component) for component in Component)
