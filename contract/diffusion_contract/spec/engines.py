"""How components become engines: sizes, runtime, Jobs."""

import math
from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from diffusion_contract.base import (
    ATOMIC,
    ApiModel,
    ExtraLabels,
    JsonObject,
    ObjectName,
    Rule,
    Timeout,
)
from diffusion_contract.enums import Component, Precision, Runtime
from diffusion_contract.resources import Resources
from diffusion_contract.tensors import MIN_PIXELS


class Range(ApiModel):
    """Smallest, usual and largest value."""

    rules = (
        Rule(
            "self.min <= self.opt && self.opt <= self.max",
            "must be ordered: min <= opt <= max",
            lambda self: self.min <= self.opt <= self.max,
        ),
    )

    min: int = Field(description="Smallest value that a request may use.")
    opt: int = Field(description="Value that the engine is tuned for; the default of a request.")
    max: int = Field(description="Largest value that a request may use.")


class BatchRange(Range):
    """How many images one engine call makes."""

    min: Annotated[int, Field(ge=1, le=128)] = Field(default=1, description="Smallest batch.")
    opt: Annotated[int, Field(ge=1, le=128)] = Field(default=4, description="Batch that the engine is tuned for.")
    max: Annotated[int, Field(ge=1, le=128)] = Field(default=8, description="Largest batch.")


Pixels = Annotated[
    int,
    Field(ge=MIN_PIXELS, le=4096),
    Rule("self % 8 == 0", "must be a multiple of 8 pixels", lambda pixels: pixels % 8 == 0),
]


class PixelRange(Range):
    """Image sizes in pixels."""

    min: Pixels = Field(default=256, description="Smallest size, pixels.")
    opt: Pixels = Field(default=512, description="Size that the engine is tuned for, pixels.")
    max: Pixels = Field(default=768, description="Largest size, pixels.")


class Bucket(ApiModel):
    """One image size in pixels."""

    height: Pixels = Field(description="Image height, pixels.")
    width: Pixels = Field(description="Image width, pixels.")


def _without_default(schema: JsonObject) -> None:
    """The API server must not add ranges beside buckets."""
    schema.pop("default", None)


_DISTINCT_BUCKETS = Rule(
    "self.all(a, self.exists_one(b, a.height == b.height && a.width == b.width))",
    "each bucket may be listed once",
    lambda buckets: len({(bucket.height, bucket.width) for bucket in buckets}) == len(buckets),
)


class Shapes(ApiModel):
    """Sizes that the engines accept; a request outside is answered with an error."""

    rules = (
        Rule(
            "!has(self.buckets) || (!has(self.height) && !has(self.width))",
            "use either buckets or height and width: the first bucket is the default size",
            lambda self: self.buckets is None or self.model_fields_set.isdisjoint({"height", "width"}),
            ".buckets",
        ),
    )

    batch: BatchRange = Field(default=BatchRange(), description="Images in one engine call.")
    height: PixelRange = Field(
        default=PixelRange(),
        description="Image height, pixels. Defaults to 256 to 768, tuned for 512, unless buckets is set.",
        json_schema_extra=_without_default,
    )
    width: PixelRange = Field(
        default=PixelRange(),
        description="Image width, pixels. Defaults to 256 to 768, tuned for 512, unless buckets is set.",
        json_schema_extra=_without_default,
    )
    buckets: Annotated[list[Bucket], Field(min_length=1, max_length=16), ATOMIC, _DISTINCT_BUCKETS] | None = Field(
        default=None,
        description="Instead of height and width: the only image sizes, each with an optimization profile of its own. "
        "The first one is the default of a request.",
    )

    @property
    def sizes(self) -> tuple[tuple[PixelRange, PixelRange], ...]:
        """Heights and widths that belong together: one pair of ranges, or one size for each bucket."""
        if self.buckets is None:
            return ((self.height, self.width),)
        return tuple((_single(bucket.height), _single(bucket.width)) for bucket in self.buckets)

    @property
    def smallest(self) -> tuple[int, int]:
        """Height and width of the smallest image."""
        return min(((height.min, width.min) for height, width in self.sizes), key=math.prod)

    @property
    def most_pixels(self) -> int:
        """Pixels of the largest image."""
        return max(height.max * width.max for height, width in self.sizes)

    @model_validator(mode="after")
    def _span_buckets(self) -> Self:
        """Height and width of all buckets: from the smallest to the largest, the first one's by default."""
        if self.buckets is not None:
            for side in ("height", "width"):
                values = [getattr(bucket, side) for bucket in self.buckets]
                span = PixelRange(min=min(values), opt=values[0], max=max(values))
                # Not one of the fields that were given.
                self.__dict__[side] = span
        return self

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> JsonObject:
        """Only what may be given together."""
        body: JsonObject = handler(self)
        hidden = {"buckets"} if self.buckets is None else {"height", "width"}
        return {name: value for name, value in body.items() if name not in hidden}


def _single(side: int) -> PixelRange:
    return PixelRange(min=side, opt=side, max=side)


def _one(component: str) -> Any:  # noqa: ANN401 - a pydantic field
    return Field(default=None, alias=component, description="Instead of spec.precision.")


class ComponentPrecision(ApiModel):
    """Number formats of single components."""

    text_encoder: Precision | None = _one("text_encoder")
    text_encoder_2: Precision | None = _one("text_encoder_2")
    image_encoder: Precision | None = _one("image_encoder")
    controlnet: Precision | None = _one("controlnet")
    denoiser: Precision | None = _one("denoiser")
    refiner: Precision | None = _one("refiner")
    vae_decoder: Precision | None = _one("vae_decoder")
    preview_decoder: Precision | None = _one("preview_decoder")
    vae_encoder: Precision | None = _one("vae_encoder")
    safety_checker: Precision | None = _one("safety_checker")

    def of(self, component: Component) -> Precision | None:
        """That of a component; None where none of its own is given."""
        precision: Precision | None = getattr(self, component, None)
        return precision


class Engines(ApiModel):
    """How the components become engines."""

    rules = (
        Rule(
            "!has(self.runtime) || self.runtime == 'tensorrt' || "
            "(!has(self.optimizationLevel) && !has(self.workspace))",
            "optimizationLevel and workspace are settings of TensorRT: leave them out with runtime onnxruntime",
            lambda self: self.runtime != Runtime.ONNXRUNTIME or not self.tunes_tensorrt,
        ),
    )

    runtime: Runtime | None = Field(
        default=None,
        description="What executes the engines. When left out: TensorRT on targets with a gpu, ONNX Runtime on others.",
    )
    optimization_level: Annotated[int, Field(ge=0, le=5)] | None = Field(
        default=None, description="TensorRT: how long kernels are searched, 0 (quick) to 5; 3 when not given."
    )
    workspace: Annotated[int, Field(ge=1, le=1048576)] | None = Field(
        default=None, description="TensorRT: most scratch memory of a kernel, MiB; all of the GPU when not given."
    )
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m"}),
        description="Of the export, compile and parity Jobs; compile Jobs of a GPU get one GPU besides. Memory that "
        "is named neither as request nor as limit is requested by the size of the weights, at least 2Gi.",
    )
    timeout: Timeout = Field(
        default="1h",
        description="How long one Job may run, such as 90s, 30m or 2h; waiting for a node does not count.",
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the build Jobs.")
    labels: ExtraLabels | None = Field(
        default=None,
        description="More labels of the build Jobs. With kueue.x-k8s.io/queue-name Kueue decides when they start, and "
        "the operator's own limit does not count them.",
    )

    @property
    def tunes_tensorrt(self) -> bool:
        """Whether a setting of TensorRT is given."""
        return self.optimization_level is not None or self.workspace is not None
