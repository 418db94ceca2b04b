"""JSON that stages are given: size profiles and what a repository is assembled from."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from diffusion_builder.contract import MAX_STEPS, MIN_PIXELS, TEXT_TO_IMAGE, Component
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.models.schedule import SchedulerType

_PIXEL_MULTIPLE = 8
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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
    """A task and the step counts that it is served with."""

    task: Literal["generate"]
    steps: tuple[Annotated[int, Field(ge=1, le=MAX_STEPS)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len(set(self.steps)) != len(self.steps):
            raise ValueError(f"steps {self.steps} are not unique")
        return self


class SchedulerSpec(_Frozen):
    """The scheduler; what is not said here is as the checkpoint's scheduler_config.json says."""

    type: SchedulerType = SchedulerType.DDIM
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    use_karras_sigmas: bool | None = None

    def overrides(self) -> dict[str, Any]:
        """The settings that were given, by their names in diffusers' configuration."""
        return self.model_dump(exclude={"type"}, exclude_none=True)


class Batching(_Frozen):
    """How long and for which batch sizes the engines' queues wait."""

    max_delay_microseconds: int = Field(default=0, ge=0)
    preferred: tuple[Annotated[int, Field(ge=1)], ...] = ()


class AssembleSpec(_Frozen):
    """Everything that a repository is assembled from."""

    source: Digest
    engines: dict[Component, Digest]
    runtime: Literal["onnxruntime"] = "onnxruntime"
    pipelines: tuple[PipelineSpec, ...] = Field(min_length=1)
    scheduler: SchedulerSpec = SchedulerSpec()
    shapes: Shapes
    batching: Batching = Batching()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [str(component) for component in TEXT_TO_IMAGE if component not in self.engines]
        if missing:
            raise ValueError(f"engines: {', '.join(missing)} missing")
        tasks = [pipeline.task for pipeline in self.pipelines]
        if len(set(tasks)) != len(tasks):
            raise ValueError("pipelines: each task may be named once")
        too_large = [size for size in self.batching.preferred if size > self.shapes.batch.max]
        if too_large:
            raise ValueError(f"batching.preferred: {too_large} exceed shapes.batch.max {self.shapes.batch.max}")
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
