"""Every component as data, and example inputs for any of them. Importing this imports torch.

Another model family needs other entries here, not another flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from diffusion_builder.components import (
    autoencoder,
    controlnet,
    denoiser,
    image_encoder,
    safety_checker,
    scheduler_step,
    text_encoder,
    two_text_encoders,
)
from diffusion_builder.components.base import ComponentSpec, LoadedModule
from diffusion_contract.enums import LOOP_DENOISERS, Component
from diffusion_contract.residuals import residual_elements
from diffusion_contract.tensors import MAX_STEPS, SECOND_WEIGHTING, WEIGHTING, DType, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMPONENTS: Mapping[Component, ComponentSpec] = {
    spec.component: spec
    for spec in (
        ComponentSpec(Component.TEXT_ENCODER, text_encoder.load),
        ComponentSpec(Component.TEXT_ENCODER_2, two_text_encoders.load_second),
        ComponentSpec(Component.IMAGE_ENCODER, image_encoder.load),
        ComponentSpec(Component.VAE_ENCODER, autoencoder.load_encoder),
        ComponentSpec(Component.CONTROLNET, controlnet.load),
        ComponentSpec(Component.ZERO_RESIDUALS, controlnet.load_zero_residuals),
        *(ComponentSpec(variant, partial(denoiser.load, component=variant)) for variant in LOOP_DENOISERS),
        ComponentSpec(Component.SCHEDULER_STEP, scheduler_step.load),
        ComponentSpec(Component.VAE_DECODER, autoencoder.load_decoder),
        ComponentSpec(Component.PREVIEW_DECODER, autoencoder.load_decoder),
        ComponentSpec(Component.SAFETY_CHECKER, safety_checker.load),
    )
}
_TYPES: Mapping[DType, torch.dtype] = {
    DType.FP32: torch.float32,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of an example input.

    Args:
        batch: samples.
        height: of the latent.
        width: of the latent.
        chunks: windows of text where a prompt may have several.
        references: images that an IP-Adapter is shown, and masks of a prompt.
    """

    batch: int
    height: int
    width: int
    chunks: int = 1
    references: int = 1


def _mask(numbers: torch.Tensor) -> torch.Tensor:
    """Most tokens stay, and the first one always does."""
    mask = (numbers > 0.3).float()  # noqa: PLR2004 - any
    mask[..., 0] = 1.0
    return mask


# What numbers from 0 to 1 become, so that prompts of an example are such as the tokenizer makes: weights near 1, since
# A1111 divides by a mean of them, and weights of encodings that add up to 1.
_PROMPT_TENSORS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: make
    for tensors in (WEIGHTING, SECOND_WEIGHTING)
    for name, make in (
        (tensors.weights.name, lambda numbers: 1 + numbers),
        (tensors.masks.name, _mask),
        (tensors.mask_weights.name, lambda numbers: numbers / numbers.sum(dim=-1, keepdim=True)),
    )
}


def example(interface: Interface, loaded: LoadedModule, sizes: Sizes, seed: int) -> tuple[torch.Tensor, ...]:
    """Make inputs for tracing or verification.

    Args:
        interface: the component's tensors.
        loaded: its module and facts.
        sizes: what is open.
        seed: same seed, same inputs.

    Returns:
        One tensor per input of the interface, in order.
    """
    sizes_by_dim = _dimensions(loaded, sizes)
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for tensor in interface.inputs:
        shape = (sizes.batch, *(sizes_by_dim[dim] if isinstance(dim, str) else dim for dim in tensor.dims))
        if tensor.name in _PROMPT_TENSORS:
            tensors.append(_PROMPT_TENSORS[tensor.name](torch.rand(shape, generator=generator)))
        elif tensor.dtype is DType.FP32:
            tensors.append(torch.randn(shape, generator=generator))
        else:
            values = torch.randint(0, sizes_by_dim.get("tokens", MAX_STEPS), shape, generator=generator)
            tensors.append(values.to(_TYPES[tensor.dtype]))
    return tuple(tensors)


def _dimensions(loaded: LoadedModule, sizes: Sizes) -> dict[str, int]:
    sizes_by_dim = {**loaded.example_facts, **loaded.facts, "latent_height": sizes.height, "latent_width": sizes.width}
    pixels = sizes_by_dim.get("pixels_per_latent", 1)
    sizes_by_dim |= {"height": sizes.height * pixels, "width": sizes.width * pixels}
    slots = sizes_by_dim.get("slots", 1)
    sizes_by_dim |= {"table_rows": slots + 1, "table_columns": slots + 2}
    sizes_by_dim["residuals"] = residual_elements(sizes_by_dim, sizes.height, sizes.width)
    sizes_by_dim |= {
        "references": sizes.references,
        "text_masks": sizes.references,
        "image_elements": sizes.references * sizes_by_dim.get("image_length", 1),
    }
    if "text_chunks" in loaded.facts:
        sizes_by_dim["text_length"] *= sizes.chunks
    return sizes_by_dim
