"""Everything after the denoising loop: decoder, safety checker, postprocessor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository.graph import EnsembleStep
from diffusion_builder.repository.unroll.wiring import identity_map, tensor_after
from diffusion_contract import python_models, tensors
from diffusion_contract.enums import Component

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.tensors import Tensor


def final_image(tier: Tier, models: Models) -> Iterator[EnsembleStep]:
    """The requested image."""
    names = identity_map(tensors.LATENT, tensors.DECODED_IMAGE, tensors.SAFETY_FLAG)
    yield from _decode(models, names, Component.VAE_DECODER)
    # One step for each output: Triton leaves out steps whose outputs no request names, but no output of a step.
    for output in models.postprocessor.outputs:
        is_flag = output.name == python_models.FLAGGED.name
        inputs = _verdict(models, names) if is_flag else _postprocessor_inputs(tier, models, names)
        yield EnsembleStep(models.postprocessor, inputs, {output.name: output.name})


def preview(calls: int, tier: Tier, models: Models) -> Iterator[EnsembleStep]:
    """The image after this number of calls; Triton leaves these steps out unless it is requested."""
    names = {tensor.name: tensor_after(tensor, calls) for tensor in (tensors.DECODED_IMAGE, tensors.SAFETY_FLAG)}
    names[tensors.LATENT.name] = tensor_after(tensors.PREVIEW_LATENT, calls)
    has_own = Component.PREVIEW_DECODER in models.engines
    yield from _decode(models, names, Component.PREVIEW_DECODER if has_own else Component.VAE_DECODER)
    outputs = {python_models.ENCODED_IMAGE.name: python_models.preview(calls).name}
    yield EnsembleStep(models.postprocessor, _postprocessor_inputs(tier, models, names), outputs)


def _decode(models: Models, names: Mapping[str, str], decoder: Component) -> Iterator[EnsembleStep]:
    yield EnsembleStep(models.engines[decoder], _map(names, tensors.LATENT), _map(names, tensors.DECODED_IMAGE))
    if Component.SAFETY_CHECKER in models.engines:
        checker = models.engines[Component.SAFETY_CHECKER]
        yield EnsembleStep(checker, _map(names, tensors.DECODED_IMAGE), _map(names, tensors.SAFETY_FLAG))


def _postprocessor_inputs(tier: Tier, models: Models, names: Mapping[str, str]) -> dict[str, str]:
    return _verdict(models, names) | identity_map(*postprocess_inputs(tier))


def _verdict(models: Models, names: Mapping[str, str]) -> dict[str, str]:
    """The decoded image, and what the safety checker says about it where there is one."""
    checked = (tensors.SAFETY_FLAG,) if Component.SAFETY_CHECKER in models.engines else ()
    return _map(names, tensors.DECODED_IMAGE, *checked)


def _map(names: Mapping[str, str], *tensors: Tensor) -> dict[str, str]:
    return {tensor.name: names[tensor.name] for tensor in tensors}


def postprocess_inputs(tier: Tier) -> Iterator[Tensor]:
    """Inputs of a request that the postprocessor reads."""
    if tier.starts_from_image:
        yield from python_models.BLENDING
    if tier.task == python_models.INPAINT:
        yield from (*python_models.MASK, python_models.PASTE_BACK)
    yield from python_models.ENHANCEMENT
