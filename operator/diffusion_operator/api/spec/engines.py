"""How components become engines: sizes, runtime, Jobs."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from diffusion_operator.api.base import (
    ApiModel,
    Duration,
    Resources,
    rule,
    rules,
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
