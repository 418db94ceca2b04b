"""Everything before the denoising loop."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from diffusion_builder.repository.graph import EnsembleStep
from diffusion_builder.repository.unroll.epilogue import postprocess_inputs
from diffusion_builder.repository.unroll.wiring import VALIDATED_RESCALE, identity_map, needs_zero_residuals, tensor_at
from diffusion_contract import python_models, tensors
from diffusion_contract.enums import Component

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.tensors import Tensor

# The ids after the preprocessor, where that is the last model that may reject a request.
_PREPARED_INPUT_IDS = "prepared_input_ids"


def prologue(tier: Tier, models: Models) -> Iterator[EnsembleStep]:
    """Text, images and numbers of a request to the tensors that the first denoiser call reads."""
    has_text = python_models.EMBEDDINGS not in tier.features
    if has_text:
        yield EnsembleStep(
            models.tokenizer,
            identity_map(*_texts(models)),
            {output.name: output.name for output in models.tokenizer.outputs},
        )
    outputs = tuple(_preprocessor_outputs(tier, models))
    if outputs:
        yield EnsembleStep(
            models.preprocessor,
            _preprocessor_batch_tensor(tier) | identity_map(*_image_inputs(tier, models)) | _passthrough(tier, models),
            identity_map(*outputs) | _validated_outputs(tier, models),
        )
    if tier.starts_from_image:
        model = models.engines[Component.VAE_ENCODER]
        yield EnsembleStep(model, identity_map(tensors.PIXELS), identity_map(tensors.LATENT_MEAN, tensors.LATENT_STD))
    if _reads_masked(tier, models):
        yield _encode_masked(models)
    yield EnsembleStep(
        models.conditioner, identity_map(*_conditioner_inputs(tier, models)), _conditioner_outputs(tier, models)
    )
    if python_models.IP_ADAPTER in tier.features:
        reference = python_models.VALIDATED_REFERENCE_PIXELS if tier.starts_from_image else tensors.REFERENCE_PIXELS
        model = models.engines[Component.IMAGE_ENCODER]
        yield EnsembleStep(
            model, {tensors.REFERENCE_PIXELS.name: reference.name}, identity_map(tensors.IMAGE_EMBEDDINGS)
        )
    if has_text:
        yield from _encode_text(tier, models)


def _texts(models: Models) -> Iterator[Tensor]:
    yield from (python_models.PROMPT, python_models.NEGATIVE_PROMPT)
    if models.facts.pooled_width:
        yield from (python_models.PROMPT_2, python_models.NEGATIVE_PROMPT_2)


def _encode_text(tier: Tier, models: Models) -> Iterator[EnsembleStep]:
    """The text encoders; the second one runs after the first one, and so after what may reject the request."""
    input_ids = {
        tensors.INPUT_IDS.name: _PREPARED_INPUT_IDS
        if tier.preprocessor_last
        else python_models.VALIDATED_INPUT_IDS.name
    }
    input_ids |= _weighting(Component.TEXT_ENCODER, models)
    encoder = models.engines[Component.TEXT_ENCODER]
    if not models.facts.pooled_width:
        yield EnsembleStep(encoder, input_ids, identity_map(tensors.TEXT_EMBEDDINGS))
        return
    yield EnsembleStep(encoder, input_ids, identity_map(tensors.FIRST_TEXT_EMBEDDINGS))
    refiner = tensors.REFINER_TEXT if models.facts.refiner_text_width else ()
    yield EnsembleStep(
        models.engines[Component.TEXT_ENCODER_2],
        identity_map(tensors.INPUT_IDS_2, tensors.FIRST_TEXT_EMBEDDINGS) | _weighting(Component.TEXT_ENCODER_2, models),
        identity_map(tensors.TEXT_EMBEDDINGS, tensors.POOLED_EMBEDDINGS, *refiner),
    )


def _weighting(component: Component, models: Models) -> dict[str, str]:
    """What the tokenizer gives a text encoder to weigh prompts with."""
    return identity_map(*tensors.weighting_inputs(component, asdict(models.facts)))


def _batch_tensor(tier: Tier) -> Tensor:
    """The tensor that every request has or brings about: it gives the batch size.

    Not the prompt itself. When a model rejects a request, Triton 2.51 answers at once, gives the request's memory away
    and forgets the request if another model is still running for it: one that is still queued would read rubbish and
    take the requests of others that it is batched with along, and the server would count the request as one in flight
    for ever. So models that may reject a request run one after the other, and engines that none of them waits for run
    after the last of them.
    """
    return python_models.PROMPT_EMBEDDINGS if python_models.EMBEDDINGS in tier.features else tensors.INPUT_IDS


def _preprocessor_batch_tensor(tier: Tier) -> dict[str, str]:
    """The same for the preprocessor, which runs before the conditioner where that needs the image, else after it."""
    if tier.starts_from_image:
        return identity_map(_batch_tensor(tier))
    if python_models.EMBEDDINGS in tier.features:
        return identity_map(tensors.GUIDANCE)
    return {tensors.INPUT_IDS.name: python_models.VALIDATED_INPUT_IDS.name}


def _passthrough(tier: Tier, models: Models) -> dict[str, str]:
    """Inputs that the preprocessor only passes through."""
    if tier.preprocessor_last and needs_zero_residuals(tier, models):
        return {tensors.MODEL_INPUT.name: tensor_at(tensors.MODEL_INPUT, 0)}
    return {}


def _validated_outputs(tier: Tier, models: Models) -> dict[str, str]:
    """What engines wait for until the preprocessor, the last that may reject the request, has validated it."""
    has_ids = tier.preprocessor_last and python_models.EMBEDDINGS not in tier.features
    return {
        **({python_models.VALIDATED_INPUT_IDS.name: _PREPARED_INPUT_IDS} if has_ids else {}),
        **(identity_map(python_models.VALIDATED_MODEL_INPUT) if _passthrough(tier, models) else {}),
    }


def _reads_masked(tier: Tier, models: Models) -> bool:
    """Whether the denoiser itself reads the mask."""
    return tier.task == python_models.INPAINT and bool(models.facts.inpainting)


def _image_inputs(tier: Tier, models: Models) -> Iterator[Tensor]:
    yield from (python_models.HEIGHT, python_models.WIDTH)
    if tier.starts_from_image:
        yield from (*python_models.INPUT_IMAGE, *python_models.BLEND_MASK)
    if tier.task == python_models.INPAINT:
        yield from (*python_models.MASK, python_models.MASK_FEATHER)
    if python_models.IP_ADAPTER in tier.features:
        yield from (*python_models.IP_ADAPTER_IMAGE, *python_models.IP_ADAPTER_MASK)
    if python_models.CONTROLNET in tier.features:
        yield from (tensor for name in models.control_nets for tensor in python_models.control_image(name))


def _preprocessor_outputs(tier: Tier, models: Models) -> Iterator[Tensor]:
    if tier.starts_from_image:
        yield tensors.PIXELS
    if tier.task == python_models.INPAINT:
        yield tensors.LATENT_MASK
    if _reads_masked(tier, models):
        yield python_models.MASKED_PIXELS
    if python_models.IP_ADAPTER in tier.features:
        yield from (tensors.REFERENCE_PIXELS, tensors.IP_ADAPTER_REGION)
    if python_models.CONTROLNET in tier.features:
        yield from (python_models.control_pixels(name) for name in models.control_nets)


def _encode_masked(models: Models) -> EnsembleStep:
    """The second use of the VAE's encoder."""
    return EnsembleStep(
        models.engines[Component.VAE_ENCODER],
        {tensors.PIXELS.name: python_models.MASKED_PIXELS.name},
        {
            tensors.LATENT_MEAN.name: python_models.MASKED_MEAN.name,
            tensors.LATENT_STD.name: python_models.MASKED_STD.name,
        },
    )


def _conditioner_inputs(tier: Tier, models: Models) -> Iterator[Tensor]:
    """Inputs of the conditioner."""
    yield _batch_tensor(tier)
    yield from _text_inputs(tier, models)
    yield from (python_models.SEED, python_models.GUIDANCE_SCALE, python_models.SCHEDULER, python_models.ETA)
    if models.facts.guidance_rescale:
        yield python_models.GUIDANCE_RESCALE
    if tier.starts_from_image:
        yield from (python_models.STRENGTH, tensors.LATENT_MEAN, tensors.LATENT_STD)
    else:
        yield from (python_models.HEIGHT, python_models.WIDTH)
    if _reads_masked(tier, models):
        yield from (python_models.MASKED_MEAN, python_models.MASKED_STD)
    elif tier.task == python_models.INPAINT:
        yield tensors.LATENT_MASK
    if python_models.IP_ADAPTER in tier.features:
        yield python_models.IP_ADAPTER_WEIGHT
        if tier.starts_from_image:
            yield tensors.REFERENCE_PIXELS
    if python_models.CONTROLNET in tier.features:
        yield from (tensor for name in models.control_nets for tensor in python_models.control_numbers(name))
    yield from (tensor for tensor in postprocess_inputs(tier) if tensor in python_models.POSTPROCESS_NUMBERS)


def _text_inputs(tier: Tier, models: Models) -> Iterator[Tensor]:
    """Inputs of the conditioner that belong to the text, besides the one that gives the batch size."""
    if python_models.EMBEDDINGS in tier.features:
        yield python_models.NEGATIVE_PROMPT_EMBEDDINGS
        if models.facts.pooled_width:
            yield from (python_models.POOLED_PROMPT_EMBEDDINGS, python_models.NEGATIVE_POOLED_PROMPT_EMBEDDINGS)
    if models.facts.pooled_width:
        yield from (*python_models.SIZE_CONDITIONS, *python_models.NEGATIVE_SIZE_CONDITIONS)
    if models.facts.refiner_text_width:
        yield from (python_models.AESTHETIC_SCORE, python_models.NEGATIVE_AESTHETIC_SCORE)


def _conditioner_outputs(tier: Tier, models: Models) -> dict[str, str]:
    """Outputs of the conditioner."""
    maps = {python_models.table_of(tier.key).name: tensors.TABLE.name}
    maps |= {tensor.name: tensor_at(tensor, 0) for tensor in python_models.LOOP_TENSORS}
    maps |= identity_map(tensors.LEVELS, tensors.IMAGE_LATENT_AND_NOISE, python_models.STEP_MASK, tensors.GUIDANCE)
    if tier.is_stochastic:
        maps |= {python_models.noise_of(call).name: tensor_at(tensors.NOISE, call) for call in range(tier.calls)}
    else:
        maps |= identity_map(python_models.ZERO_NOISE)
    if models.facts.guidance_rescale:
        maps[tensors.GUIDANCE_RESCALE.name] = VALIDATED_RESCALE
    if _reads_masked(tier, models):
        maps |= identity_map(tensors.MASKED_LATENT)
    if python_models.EMBEDDINGS in tier.features:
        maps[python_models.REQUEST_TEXT_EMBEDDINGS.name] = tensors.TEXT_EMBEDDINGS.name
        if models.facts.pooled_width:
            maps[python_models.REQUEST_POOLED_EMBEDDINGS.name] = tensors.POOLED_EMBEDDINGS.name
    else:
        maps |= identity_map(python_models.VALIDATED_INPUT_IDS)
    if models.facts.pooled_width:
        maps |= identity_map(tensors.TIME_IDS)
    if models.facts.refiner_text_width:
        maps |= identity_map(tensors.REFINER_TIME_IDS)
    if python_models.CONTROLNET in tier.features:
        maps |= identity_map(*(python_models.control_scales(name) for name in models.control_nets))
    return maps | _ip_adapter_outputs(tier, models)


def _ip_adapter_outputs(tier: Tier, models: Models) -> dict[str, str]:
    """Reference images of weight 0, where the denoiser reads some and the request brings none."""
    if not models.facts.ip_adapter:
        return {}
    if python_models.IP_ADAPTER in tier.features:
        validated = (python_models.VALIDATED_REFERENCE_PIXELS,) if tier.starts_from_image else ()
        return identity_map(tensors.IP_ADAPTER_SCALE, *validated)
    return {
        tensors.IP_ADAPTER_SCALE.name: tensors.IP_ADAPTER_SCALE.name,
        python_models.ZERO_IMAGE_EMBEDDINGS.name: tensors.IMAGE_EMBEDDINGS.name,
        python_models.FULL_IP_ADAPTER_REGION.name: tensors.IP_ADAPTER_REGION.name,
    }
