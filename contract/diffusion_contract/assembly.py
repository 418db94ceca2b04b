"""What a repository is assembled from: the JSON that the stage `assemble` is given."""

import json
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from diffusion_contract.base import SET, ApiModel, JsonObject
from diffusion_contract.durations import duration_microseconds
from diffusion_contract.engines import control_net
from diffusion_contract.enums import Component, Runtime
from diffusion_contract.exports import Digest
from diffusion_contract.limits import CONTROL_NET_PATTERN
from diffusion_contract.spec.acceleration import Acceleration, acceleration_problems
from diffusion_contract.spec.engines import Shapes
from diffusion_contract.spec.pipeline import DiffusionPipelineSpec
from diffusion_contract.spec.sampling import Feature, Pipeline, PreviewCount, Scheduler, StepCount, Task
from diffusion_contract.spec.serving import Cuda
from diffusion_contract.tensors import MAX_CONTROLNETS, TEXT_TO_IMAGE


class EnsembleSpec(ApiModel):
    """A task, what a request brings besides a text, and the step counts that it is served with."""

    rules = Pipeline.rules

    task: Task
    steps: Annotated[tuple[StepCount, ...], SET] = Field(min_length=1)
    features: Annotated[tuple[Feature, ...], SET] = ()
    previews: Annotated[tuple[PreviewCount, ...], SET] = ()

    @classmethod
    def of(cls, pipeline: Pipeline) -> Self:
        """With sets in a fixed order, so that the same ensembles have the same name."""
        return cls(
            task=pipeline.task,
            steps=tuple(sorted(pipeline.steps)),
            features=tuple(sorted(pipeline.features or ())),
            previews=tuple(sorted(pipeline.previews or ())),
        )


class ControlNetEngine(ApiModel):
    """A ControlNet's engine, and the name by which requests call it."""

    name: str = Field(pattern=CONTROL_NET_PATTERN, max_length=24)
    engine: Digest


class Queues(ApiModel):
    """How the engines' queues join requests.

    Attributes:
        max_queue_delay_microseconds: how long they wait.
        preferred_batch_sizes: batch sizes that are not waited beyond.
        take_turns: whether the models of the denoising loop take turns.
        priorities: whether the denoiser serves requests of priority 1 before those of priority 2.
    """

    max_queue_delay_microseconds: int = Field(default=0, ge=0)
    preferred_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    take_turns: bool = True
    priorities: bool = False


class AssembleSpec(ApiModel):
    """Everything that a repository is assembled from.

    Attributes:
        source: the checkpoint, for its tokenizer and scheduler.
        engines: all but those of ControlNets.
        control_nets: in the order in which the denoiser reads them.
        runtime: that the engines are for.
        pipelines: what is served.
        schedulers: that a request may choose among; the first one is the default.
        shapes: the profile.
        batching: of the queues.
        cuda: how TensorRT's engines are launched; None for ONNX Runtime.
        acceleration: of all pipelines.
        denoising_start: fraction of the denoising after which the refiner takes over; None without one.
    """

    source: Digest
    engines: dict[Component, Digest]
    control_nets: tuple[ControlNetEngine, ...] = Field(default=(), max_length=MAX_CONTROLNETS)
    runtime: Runtime = Runtime.ONNXRUNTIME
    pipelines: tuple[EnsembleSpec, ...] = Field(min_length=1)
    schedulers: tuple[Scheduler, ...] = Field(default=(Scheduler(),), min_length=1)
    shapes: Shapes
    batching: Queues = Queues()
    cuda: Cuda | None = None
    acceleration: Acceleration | None = None
    denoising_start: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _check_completeness(self) -> Self:
        missing = [str(component) for component in TEXT_TO_IMAGE if component not in self.engines]
        if missing:
            raise ValueError(f"engines: {', '.join(missing)} missing")
        if Component.CONTROLNET in self.engines:
            raise ValueError("engines: controlnet: list ControlNets in controlNets, each with its name")
        if (Component.REFINER in self.engines) != (self.denoising_start is not None):
            raise ValueError("engines: refiner and denoisingStart belong together: give both or none")
        too_large = [size for size in self.batching.preferred_batch_sizes if size > self.shapes.batch.max]
        if too_large:
            raise ValueError(
                f"batching.preferredBatchSizes: {too_large} exceed shapes.batch.max {self.shapes.batch.max}"
            )
        steps = tuple(count for item in self.pipelines for count in item.steps)
        for problem in acceleration_problems(self.acceleration, steps, control_nets=bool(self.control_nets)):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """What ensembles and requests tell apart by name."""
        entries = {
            "pipelines: each task with the same features": [
                f"{item.task} {sorted(item.features)}" for item in self.pipelines
            ],
            "schedulers: each name": [item.request_name for item in self.schedulers],
            "controlNets: each name": [item.name for item in self.control_nets],
        }
        for subject, names in entries.items():
            if len(set(names)) != len(names):
                raise ValueError(f"{subject} may be listed once, got {', '.join(names)}")
        return self

    def document(self) -> JsonObject:
        """As JSON, without what is not given."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def text(self) -> str:
        """As canonical JSON text."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"))


def assembly(
    spec: DiffusionPipelineSpec, runtime: Runtime, checkpoint: str, engines: Mapping[str, str]
) -> AssembleSpec:
    """What the repository of one SKU is assembled from.

    Args:
        spec: of the pipeline.
        runtime: of the engines.
        checkpoint: digest of its source.
        engines: digests by the engines' names in the component graph.
    """
    batching = spec.serving.batching
    nets = {control_net(net.name): net.name for net in spec.model.control_nets or ()}
    return AssembleSpec(
        source=checkpoint,
        engines={Component(name): digest for name, digest in engines.items() if name not in nets},
        control_nets=tuple(ControlNetEngine(name=net, engine=engines[name]) for name, net in nets.items()),
        runtime=runtime,
        pipelines=tuple(EnsembleSpec.of(item) for item in spec.pipelines),
        schedulers=spec.all_schedulers,
        shapes=spec.shapes,
        batching=Queues(
            max_queue_delay_microseconds=duration_microseconds(batching.max_queue_delay),
            preferred_batch_sizes=tuple(sorted(batching.preferred_batch_sizes or ())),
            take_turns=batching.take_turns,
            priorities=batching.priorities,
        ),
        cuda=spec.serving.cuda if runtime == Runtime.TENSORRT else None,
        acceleration=spec.acceleration,
        denoising_start=spec.model.denoising_start,
    )
