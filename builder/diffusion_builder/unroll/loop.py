"""The denoising loop: N times ControlNets, denoiser and scheduler step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder import contract
from diffusion_builder import python_models as python
from diffusion_builder.contract import Component, following
from diffusion_builder.graph import Step
from diffusion_builder.unroll.wiring import RESCALE, after, at, residuals, same, without_control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_builder.unroll.models import Models
    from diffusion_builder.unroll.tier import Tier


def loop(tier: Tier, parts: Models) -> Iterator[Step]:
    """From the first latent to the last."""
    controlled = python.CONTROLNET in tier.features
    if without_control(tier, parts):
        # Once for all calls: nothing in it depends on the call.
        accepted = python.ACCEPTED_INPUT.name if tier.pictures_last else at(contract.MODEL_INPUT, 0)
        read = {contract.MODEL_INPUT.name: accepted}
        yield Step(parts.engines[Component.CONTROL_OFF], read, same(contract.RESIDUALS))
    for call in range(tier.calls):
        if controlled:
            yield from (_control(parts, name, call) for name in parts.control_nets)
        yield _denoise(tier, parts, call)
        yield _advance(tier, parts, call)


def _control(parts: Models, name: str, call: int) -> Step:
    read = (contract.MODEL_INPUT, contract.TIMESTEP, contract.STEP_INDEX)
    return Step(
        parts.control_nets[name],
        {
            **{tensor.name: at(tensor, call) for tensor in read},
            **same(contract.TEXT_EMBEDDINGS),
            contract.CONTROL_IMAGE.name: python.control_pixels(name).name,
            contract.CONTROL_SCALES.name: python.control_scales(name).name,
        },
        {contract.RESIDUALS.name: residuals(name, call)},
    )


def _denoise(tier: Tier, parts: Models, call: int) -> Step:
    facts = parts.facts
    read = {tensor.name: at(tensor, call) for tensor in (contract.MODEL_INPUT, contract.TIMESTEP)}
    read |= same(contract.TEXT_EMBEDDINGS, contract.GUIDANCE)
    if facts.guidance_rescale:
        read[contract.GUIDANCE_RESCALE.name] = RESCALE
    if facts.inpainting:
        read |= same(contract.LATENT_MASK, contract.MASKED_LATENT)
    if facts.ip_adapter:
        read |= same(contract.IMAGE_EMBEDDINGS, contract.IP_ADAPTER_SCALE, contract.IP_ADAPTER_REGION)
    for number, name in enumerate(list(parts.control_nets)[: facts.controlnets], 1):
        controlled = python.CONTROLNET in tier.features
        given = residuals(name, call) if controlled else contract.RESIDUALS.name
        read[contract.residual_input(number).name] = given
    return Step(parts.engines[Component.DENOISER], read, {contract.MODEL_OUTPUT.name: at(contract.MODEL_OUTPUT, call)})


def _advance(tier: Tier, parts: Models, call: int) -> Step:
    read = {tensor.name: at(tensor, call) for tensor in (contract.STATE, contract.MODEL_OUTPUT, contract.STEP_INDEX)}
    read[contract.NOISE.name] = at(contract.NOISE, call) if tier.draws else python.NO_NOISE.name
    read |= same(contract.TABLE, contract.LEVELS, contract.KEPT)
    read[contract.LATENT_MASK.name] = python.STEP_MASK.name
    given = {following(tensor).name: at(tensor, call + 1) for tensor in python.CARRIED}
    if call == tier.calls - 1:
        # The last step's state is read by nobody; its latent is what the others' is not: an end.
        given = same(contract.LATENT)
    elif call + 1 in tier.previews:
        given[contract.PREVIEW_LATENT.name] = after(contract.PREVIEW_LATENT, call + 1)
    return Step(parts.engines[Component.SCHEDULER_STEP], read, given)
