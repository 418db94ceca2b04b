"""The denoising loop: N times ControlNets, denoiser and scheduler step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository.graph import EnsembleStep
from diffusion_builder.repository.unroll.wiring import (
    VALIDATED_RESCALE,
    deep_features_at,
    identity_map,
    needs_zero_residuals,
    residuals_at,
    tensor_after,
    tensor_at,
)
from diffusion_contract import python_models, tensors
from diffusion_contract.enums import SHALLOW_DENOISERS, Component
from diffusion_contract.tensors import next_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier


def loop(tier: Tier, models: Models) -> Iterator[EnsembleStep]:
    """From the first latent to the last."""
    is_controlled = python_models.CONTROLNET in tier.features
    if needs_zero_residuals(tier, models):
        # Once for all calls: nothing in it depends on the call.
        model_input = (
            python_models.VALIDATED_MODEL_INPUT.name if tier.preprocessor_last else tensor_at(tensors.MODEL_INPUT, 0)
        )
        inputs = {tensors.MODEL_INPUT.name: model_input}
        yield EnsembleStep(models.engines[Component.ZERO_RESIDUALS], inputs, identity_map(tensors.RESIDUALS))
    for call in range(tier.calls):
        is_refined = tier.denoisers[call] is Component.REFINER
        if is_controlled and not is_refined:
            yield from (_control(models, name, call) for name in models.control_nets)
        yield _refine(models, call) if is_refined else _denoise(tier, models, call)
        yield _advance(tier, models, call)


def _control(models: Models, name: str, call: int) -> EnsembleStep:
    inputs = (tensors.MODEL_INPUT, tensors.TIMESTEP, tensors.STEP_INDEX)
    return EnsembleStep(
        models.control_nets[name],
        {
            **{tensor.name: tensor_at(tensor, call) for tensor in inputs},
            **identity_map(tensors.TEXT_EMBEDDINGS),
            **(identity_map(tensors.POOLED_EMBEDDINGS, tensors.TIME_IDS) if models.facts.pooled_width else {}),
            tensors.CONTROL_IMAGE.name: python_models.control_pixels(name).name,
            tensors.CONTROL_SCALES.name: python_models.control_scales(name).name,
        },
        {tensors.RESIDUALS.name: residuals_at(name, call)},
    )


def _denoise(tier: Tier, models: Models, call: int) -> EnsembleStep:
    facts, variant = models.facts, tier.denoisers[call]
    inputs = {tensor.name: tensor_at(tensor, call) for tensor in (tensors.MODEL_INPUT, tensors.TIMESTEP)}
    inputs |= identity_map(tensors.TEXT_EMBEDDINGS, tensors.GUIDANCE)
    if facts.guidance_rescale:
        inputs[tensors.GUIDANCE_RESCALE.name] = VALIDATED_RESCALE
    if facts.inpainting:
        inputs |= identity_map(tensors.LATENT_MASK, tensors.MASKED_LATENT)
    if facts.ip_adapter:
        inputs |= identity_map(tensors.IMAGE_EMBEDDINGS, tensors.IP_ADAPTER_SCALE, tensors.IP_ADAPTER_REGION)
    if facts.pooled_width:
        inputs |= identity_map(tensors.POOLED_EMBEDDINGS, tensors.TIME_IDS)
    for number, name in enumerate(list(models.control_nets)[: facts.controlnets], 1):
        is_controlled = python_models.CONTROLNET in tier.features
        residuals = residuals_at(name, call) if is_controlled else tensors.RESIDUALS.name
        inputs[tensors.residual_input(number).name] = residuals
    outputs = {tensors.MODEL_OUTPUT.name: tensor_at(tensors.MODEL_OUTPUT, call)}
    if variant in SHALLOW_DENOISERS:
        inputs |= deep_features_at(tier.last_full_call(call))
    else:
        read = {port.name for reader in tier.shallow_calls(call) for port in models.engines[reader].inputs}
        outputs |= {name: tensor for name, tensor in deep_features_at(call).items() if name in read}
    model = models.engines[variant]
    ports = {port.name for port in model.inputs}
    # Some variants read less than the full denoiser.
    return EnsembleStep(model, {name: tensor for name, tensor in inputs.items() if name in ports}, outputs)


def _refine(models: Models, call: int) -> EnsembleStep:
    """A call of the refiner, which reads neither reference images nor what ControlNets give."""
    inputs = {tensor.name: tensor_at(tensor, call) for tensor in (tensors.MODEL_INPUT, tensors.TIMESTEP)}
    inputs |= identity_map(tensors.GUIDANCE)
    inputs[tensors.TEXT_EMBEDDINGS.name] = tensors.REFINER_TEXT_EMBEDDINGS.name
    inputs[tensors.POOLED_EMBEDDINGS.name] = tensors.REFINER_POOLED_EMBEDDINGS.name
    inputs[tensors.TIME_IDS.name] = tensors.REFINER_TIME_IDS.name
    if models.facts.guidance_rescale:
        inputs[tensors.GUIDANCE_RESCALE.name] = VALIDATED_RESCALE
    outputs = {tensors.MODEL_OUTPUT.name: tensor_at(tensors.MODEL_OUTPUT, call)}
    return EnsembleStep(models.engines[Component.REFINER], inputs, outputs)


def _advance(tier: Tier, models: Models, call: int) -> EnsembleStep:
    inputs = {
        tensor.name: tensor_at(tensor, call) for tensor in (tensors.STATE, tensors.MODEL_OUTPUT, tensors.STEP_INDEX)
    }
    inputs[tensors.NOISE.name] = tensor_at(tensors.NOISE, call) if tier.is_stochastic else python_models.ZERO_NOISE.name
    inputs |= identity_map(tensors.TABLE, tensors.LEVELS, tensors.IMAGE_LATENT_AND_NOISE)
    inputs[tensors.LATENT_MASK.name] = python_models.STEP_MASK.name
    outputs = {next_tensor(tensor).name: tensor_at(tensor, call + 1) for tensor in python_models.LOOP_TENSORS}
    if call == tier.calls - 1:
        # No step reads the state after the last call, and only its latent is decoded.
        outputs = identity_map(tensors.LATENT)
    elif call + 1 in tier.previews:
        outputs[tensors.PREVIEW_LATENT.name] = tensor_after(tensors.PREVIEW_LATENT, call + 1)
    return EnsembleStep(models.engines[Component.SCHEDULER_STEP], inputs, outputs)
