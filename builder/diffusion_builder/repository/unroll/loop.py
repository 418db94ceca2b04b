"""The denoising loop: N times ControlNets, denoiser and scheduler step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository import python_models as python
from diffusion_builder.repository.graph import Step
from diffusion_builder.repository.unroll.wiring import RESCALE, after, at, residuals, same, without_control
from diffusion_contract import tensors
from diffusion_contract.tensors import Component, following

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier


def loop(tier: Tier, parts: Models) -> Iterator[Step]:
    """From the first latent to the last."""
    controlled = python.CONTROLNET in tier.features
    if without_control(tier, parts):
        # Once for all calls: nothing in it depends on the call.
        accepted = python.ACCEPTED_INPUT.name if tier.pictures_last else at(tensors.MODEL_INPUT, 0)
        read = {tensors.MODEL_INPUT.name: accepted}
        yield Step(parts.engines[Component.CONTROL_OFF], read, same(tensors.RESIDUALS))
    for call in range(tier.calls):
        if controlled:
            yield from (_control(parts, name, call) for name in parts.control_nets)
        yield _denoise(tier, parts, call)
        yield _advance(tier, parts, call)


def _control(parts: Models, name: str, call: int) -> Step:
    read = (tensors.MODEL_INPUT, tensors.TIMESTEP, tensors.STEP_INDEX)
    return Step(
        parts.control_nets[name],
        {
            **{tensor.name: at(tensor, call) for tensor in read},
            **same(tensors.TEXT_EMBEDDINGS),
            tensors.CONTROL_IMAGE.name: python.control_pixels(name).name,
            tensors.CONTROL_SCALES.name: python.control_scales(name).name,
        },
        {tensors.RESIDUALS.name: residuals(name, call)},
    )


def _denoise(tier: Tier, parts: Models, call: int) -> Step:
    facts = parts.facts
    read = {tensor.name: at(tensor, call) for tensor in (tensors.MODEL_INPUT, tensors.TIMESTEP)}
    read |= same(tensors.TEXT_EMBEDDINGS, tensors.GUIDANCE)
    if facts.guidance_rescale:
        read[tensors.GUIDANCE_RESCALE.name] = RESCALE
    if facts.inpainting:
        read |= same(tensors.LATENT_MASK, tensors.MASKED_LATENT)
    if facts.ip_adapter:
        read |= same(tensors.IMAGE_EMBEDDINGS, tensors.IP_ADAPTER_SCALE, tensors.IP_ADAPTER_REGION)
    for number, name in enumerate(list(parts.control_nets)[: facts.controlnets], 1):
        controlled = python.CONTROLNET in tier.features
        given = residuals(name, call) if controlled else tensors.RESIDUALS.name
        read[tensors.residual_input(number).name] = given
    return Step(parts.engines[Component.DENOISER], read, {tensors.MODEL_OUTPUT.name: at(tensors.MODEL_OUTPUT, call)})


def _advance(tier: Tier, parts: Models, call: int) -> Step:
    read = {tensor.name: at(tensor, call) for tensor in (tensors.STATE, tensors.MODEL_OUTPUT, tensors.STEP_INDEX)}
    read[tensors.NOISE.name] = at(tensors.NOISE, call) if tier.draws else python.NO_NOISE.name
    read |= same(tensors.TABLE, tensors.LEVELS, tensors.KEPT)
    read[tensors.LATENT_MASK.name] = python.STEP_MASK.name
    given = {following(tensor).name: at(tensor, call + 1) for tensor in python.CARRIED}
    if call == tier.calls - 1:
        # The last step's state is read by nobody; its latent is what the others' is not: an end.
        given = same(tensors.LATENT)
    elif call + 1 in tier.previews:
        given[tensors.PREVIEW_LATENT.name] = after(tensors.PREVIEW_LATENT, call + 1)
    return Step(parts.engines[Component.SCHEDULER_STEP], read, given)
