"""How components become engines: sizes, runtime, Jobs."""

from typing import Annotated, Any

from pydantic import Field

from diffusion_contract.base import (
    ApiModel,
    ExtraLabels,
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


class Shapes(ApiModel):
    """Sizes that the engines accept; a request outside is answered with an error."""

    batch: BatchRange = Field(default=BatchRange(), description="Images in one engine call.")
    height: PixelRange = Field(default=PixelRange(), description="Image height, pixels.")
    width: PixelRange = Field(default=PixelRange(), description="Image width, pixels.")


def _one(component: str) -> Any:  # noqa: ANN401 - a pydantic field
    return Field(default=None, alias=component, description="Instead of spec.precision.")


class ComponentPrecision(ApiModel):
    """Number formats of single components."""

    text_encoder: Precision | None = _one("text_encoder")
    text_encoder_2: Precision | None = _one("text_encoder_2")
    image_encoder: Precision | None = _one("image_encoder")
    controlnet: Precision | None = _one("controlnet")
    denoiser: Precision | None = _one("denoiser")
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
