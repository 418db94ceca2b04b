"""JSON that stages are given: size profiles and what a repository is assembled from."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from diffusion_builder.components.options import Digest  # noqa: TC001 - pydantic reads it when it runs
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.models.schedule import SchedulerType
from diffusion_contract.tensors import MAX_CONTROLNETS, MAX_STEPS, MIN_PIXELS, TEXT_TO_IMAGE, Component

_PIXEL_MULTIPLE = 8
_Model = TypeVar("_Model", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Range(_Frozen):
    """Smallest, usual and largest value of a dimension."""

    min: int = Field(ge=1)
    opt: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min <= opt <= max must hold, got {self.min}, {self.opt}, {self.max}")
        return self


class Shapes(_Frozen):
    """The profile that is served: samples per batch, and height and width in pixels."""

    batch: Range
    height: Range
    width: Range

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        for name, side in (("height", self.height), ("width", self.width)):
            values = (side.min, side.opt, side.max)
            if side.min < MIN_PIXELS or any(value % _PIXEL_MULTIPLE for value in values):
                raise ValueError(f"{name}: {values} must be multiples of {_PIXEL_MULTIPLE}, at least {MIN_PIXELS}")
        return self


class PipelineSpec(_Frozen):
    """A task, what a request brings besides a text, and the step counts that it is served with."""

    task: Literal["generate", "img2img", "inpaint"]
    steps: tuple[Annotated[int, Field(ge=1, le=MAX_STEPS)], ...] = Field(min_length=1)
    features: tuple[Literal["controlnet", "ip_adapter", "embeddings"], ...] = ()
    previews: tuple[Annotated[int, Field(ge=1, lt=MAX_STEPS)], ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for name, values in (("steps", self.steps), ("features", self.features), ("previews", self.previews)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} {values} are not unique")
        late = [calls for calls in self.previews if calls >= max(self.steps)]
        if late:
            raise ValueError(f"previews {late} are not before the last of {max(self.steps)} steps")
        return self


class SchedulerSpec(_Frozen):
    """A scheduler; what is not said here is as the checkpoint's scheduler_config.json says."""

    type: SchedulerType = SchedulerType.DDIM
    name: str = Field(default="", pattern=r"^[a-z0-9]*$", max_length=32)
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None

    @property
    def label(self) -> str:
        """How requests and ensembles call it."""
        return self.name or self.type.lower()

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, by their names in diffusers' configuration."""
        return self.model_dump(exclude={"type", "name"}, exclude_none=True)


def check_control_name(name: str) -> None:
    """Refuse a ControlNet's name that makes names of inputs ambiguous.

    Raises:
        ValueError: it does.
    """
    if name.endswith("_file"):
        raise ValueError(f"name {name}: a request's control_image_{name} would be a file's name")


class ControlNetSpec(_Frozen):
    """A ControlNet's engine, and the name by which requests call it."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$", max_length=32)
    engine: Digest

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        check_control_name(self.name)
        return self


class Batching(_Frozen):
    """How the engines' queues join requests.

    Args:
        max_delay_microseconds: how long they wait.
        preferred: batch sizes that are not waited beyond.
        take_turns: whether the models of the denoising loop take turns.
        priorities: whether the denoiser serves requests of priority 1 before those of priority 2.
    """

    max_delay_microseconds: int = Field(default=0, ge=0)
    preferred: tuple[Annotated[int, Field(ge=1)], ...] = ()
    take_turns: bool = True
    priorities: bool = False


class AssembleSpec(_Frozen):
    """Everything that a repository is assembled from.

    Args:
        source: the checkpoint, for its tokenizer and scheduler.
        engines: all but those of ControlNets.
        control_nets: in the order in which the denoiser reads them.
        runtime: that the engines are for.
        pipelines: what is served.
        schedulers: that a request may choose among; the first one is the default.
        shapes: the profile.
        batching: of the queues.
    """

    source: Digest
    engines: dict[Component, Digest]
    control_nets: tuple[ControlNetSpec, ...] = Field(default=(), max_length=MAX_CONTROLNETS)
    runtime: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    pipelines: tuple[PipelineSpec, ...] = Field(min_length=1)
    schedulers: tuple[SchedulerSpec, ...] = Field(default=(SchedulerSpec(),), min_length=1)
    shapes: Shapes
    batching: Batching = Batching()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [str(component) for component in TEXT_TO_IMAGE if component not in self.engines]
        if missing:
            raise ValueError(f"engines: {', '.join(missing)} missing")
        if Component.CONTROLNET in self.engines:
            raise ValueError("engines: controlnet: list ControlNets in controlNets, each with its name")
        too_large = [size for size in self.batching.preferred if size > self.shapes.batch.max]
        if too_large:
            raise ValueError(f"batching.preferred: {too_large} exceed shapes.batch.max {self.shapes.batch.max}")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        """What ensembles and requests tell apart by name."""
        named = {
            "pipelines: each task with the same features": [
                f"{one.task} {sorted(one.features)}" for one in self.pipelines
            ],
            "schedulers: each name": [one.label for one in self.schedulers],
            "controlNets: each name": [one.name for one in self.control_nets],
        }
        for what, names in named.items():
            if len(set(names)) != len(names):
                raise ValueError(f"{what} may be listed once, got {', '.join(names)}")
        return self


def parse(model: type[_Model], text: str, what: str) -> _Model:
    """Read a model from JSON text.

    Args:
        model: Shapes or AssembleSpec.
        text: the JSON.
        what: the option's name, for the message.

    Raises:
        BadInputError: not JSON, or not valid; the message names the fields.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BadInputError(Reason.INVALID_SPEC, f"{what} is not JSON: {error}") from error
    return validate(model, body, what)


def validate(model: type[_Model], body: object, what: str) -> _Model:
    """Read a model from what JSON or YAML has held.

    Raises:
        BadInputError: not valid; the message names the fields.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or what}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()[:5]
        )
        raise BadInputError(Reason.INVALID_SPEC, f"{what}: {problems}") from error
