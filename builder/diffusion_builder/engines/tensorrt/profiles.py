"""Optimization profiles: smallest, usual and largest shape of every input of a component.

TensorRT compiles for the shapes of a profile. An input that a profile leaves out does not fail the build: trtexec
silently fixes its open dimensions to 1. So a profile here always names all inputs, from the same contract that the
graph was exported with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import LOOP_DENOISERS, Component
from diffusion_contract.residuals import residual_elements
from diffusion_contract.spec.engines import Range
from diffusion_contract.tensors import MAX_REFERENCE_IMAGES, MAX_TEXT_MASKS, Tensor, interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_contract.spec import Shapes

# More rows of state than any scheduler keeps (UniPC of order 3 keeps 5). The step's engine spans them all, so that
# another scheduler is another table and not another engine.
MAX_SLOTS = 8

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputProfile:
    """Shapes of one input, batch first.

    Args:
        name: the input's name.
        min: smallest shape that will be accepted.
        opt: the shape that kernels are chosen for.
        max: largest shape that will be accepted.
    """

    name: str
    min: Shape
    opt: Shape
    max: Shape


Profile = tuple[InputProfile, ...]


def optimization_profiles(component: Component, facts: Mapping[str, int], shapes: Shapes) -> tuple[Profile, ...]:
    """Shapes of every input, once per optimization profile.

    The denoiser gets two, tuned for the smallest and for the largest batch: an engine tuned for batch 8 runs batch 1
    about 15 % slower than one tuned for batch 1. Triton picks the one whose `opt` is nearer. With buckets every
    component has one for each size.

    Args:
        component: whose inputs.
        facts: what is known of the checkpoint; only what the component's inputs mention is needed.
        shapes: batch, and height and width in pixels.

    Raises:
        BadInputError: a fact is missing, or a size in pixels is no whole number of latent elements.
    """
    # Components whose inputs have no size get the same profile for each bucket: one of them is enough.
    profiles = dict.fromkeys(
        tuple(_input_profile(component, tensor, batch, ranges) for tensor in interface(component, facts).inputs)
        for ranges in (_ranges(facts, height, width) for height, width in shapes.sizes)
        for batch in _batches(component, shapes)
    )
    return tuple(profiles)


def _batches(component: Component, shapes: Shapes) -> tuple[Range, ...]:
    """Ranges of the batch; one with buckets, since each profile has an execution context with memory of its own."""
    batch = shapes.batch
    if component not in LOOP_DENOISERS or batch.min == batch.max or shapes.buckets:
        return (batch,)
    return (
        Range(min=batch.min, opt=batch.min, max=batch.max),
        Range(min=batch.min, opt=batch.max, max=batch.max),
    )


def _ranges(facts: Mapping[str, int], height: Range, width: Range) -> Mapping[str, Range]:
    """What every named dimension may be, for images of these sizes in pixels."""
    ranges = {name: Range(min=value, opt=value, max=value) for name, value in facts.items()}
    ranges["slots"] = Range(min=1, opt=1, max=MAX_SLOTS)
    ranges["height"], ranges["width"] = height, width
    ranges["text_masks"] = Range(min=1, opt=1, max=MAX_TEXT_MASKS)
    ranges["references"] = Range(min=1, opt=1, max=MAX_REFERENCE_IMAGES)
    if length := facts.get("image_length"):
        ranges["image_elements"] = Range(min=length, opt=length, max=MAX_REFERENCE_IMAGES * length)
    ranges["table_rows"] = Range(min=2, opt=2, max=MAX_SLOTS + 1)
    ranges["table_columns"] = Range(min=3, opt=3, max=MAX_SLOTS + 2)
    if pixels := facts.get("pixels_per_latent"):
        ranges["latent_height"] = _latent("height", height, pixels)
        ranges["latent_width"] = _latent("width", width, pixels)
        if residual_elements(facts, 1, 1):
            ranges["residuals"] = _residuals(facts, ranges["latent_height"], ranges["latent_width"])
    if (chunks := facts.get("text_chunks")) and (window := facts.get("text_length")):
        ranges["text_length"] = Range(min=window, opt=window, max=chunks * window)
    return ranges


def _residuals(facts: Mapping[str, int], height: Range, width: Range) -> Range:
    return Range(
        min=residual_elements(facts, height.min, width.min),
        opt=residual_elements(facts, height.opt, width.opt),
        max=residual_elements(facts, height.max, width.max),
    )


def _latent(name: str, side: Range, pixels: int) -> Range:
    sizes = (side.min, side.opt, side.max)
    if any(size % pixels for size in sizes):
        raise BadInputError(
            Reason.INVALID_SPEC,
            f"{name}: {sizes} must be multiples of {pixels}, the pixels per latent element of this checkpoint",
        )
    return Range(min=side.min // pixels, opt=side.opt // pixels, max=side.max // pixels)


def _input_profile(component: Component, tensor: Tensor, batch: Range, ranges: Mapping[str, Range]) -> InputProfile:
    unknown = [dim for dim in tensor.dims if isinstance(dim, str) and dim not in ranges]
    if unknown:
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"{component}: nothing says how large {unknown[0]} of {tensor.name} is: export it again, with the "
            "sources of text encoder and VAE in the option shapeSources",
        )
    dims = [Range(min=dim, opt=dim, max=dim) if isinstance(dim, int) else ranges[dim] for dim in tensor.dims]
    extents = (batch, *dims)
    return InputProfile(
        tensor.name,
        tuple(extent.min for extent in extents),
        tuple(extent.opt for extent in extents),
        tuple(extent.max for extent in extents),
    )
