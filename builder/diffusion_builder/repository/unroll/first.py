"""Everything before the denoising loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository import python_models as python
from diffusion_builder.repository.graph import Step
from diffusion_builder.repository.unroll.pictures import finish
from diffusion_builder.repository.unroll.wiring import RESCALE, at, same, without_control
from diffusion_contract import tensors
from diffusion_contract.tensors import Component

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.tensors import Tensor

# The ids after the preprocessor, where that is the last model that may refuse.
_PREPARED_IDS = "prepared_ids"


def first(tier: Tier, parts: Models) -> Iterator[Step]:
    """Text, pictures and numbers of a request to the tensors that the first denoiser call reads."""
    text = python.EMBEDDINGS not in tier.features
    if text:
        yield Step(parts.tokenizer, same(python.PROMPT, python.NEGATIVE_PROMPT), same(tensors.INPUT_IDS))
    pictures = tuple(_pictures(tier, parts))
    if pictures:
        yield Step(
            parts.preprocessor,
            _picture_carrier(tier) | same(*_pictures_given(tier, parts)) | _kept(tier, parts),
            same(*pictures) | _handed_on(tier, parts),
        )
    if tier.starts_from_picture:
        model = parts.engines[Component.VAE_ENCODER]
        yield Step(model, same(tensors.PIXELS), same(tensors.LATENT_MEAN, tensors.LATENT_STD))
    if _reads_masked(tier, parts):
        yield _encode_masked(parts)
    yield Step(parts.conditioner, same(*_asked(tier, parts)), _conditions(tier, parts))
    if python.IP_ADAPTER in tier.features:
        prepared = python.ACCEPTED_PIXELS if tier.starts_from_picture else tensors.REFERENCE_PIXELS
        model = parts.engines[Component.IMAGE_ENCODER]
        yield Step(model, {tensors.REFERENCE_PIXELS.name: prepared.name}, same(tensors.IMAGE_EMBEDDINGS))
    if text:
        accepted = _PREPARED_IDS if tier.pictures_last else python.ACCEPTED_IDS.name
        encoder = parts.engines[Component.TEXT_ENCODER]
        yield Step(encoder, {tensors.INPUT_IDS.name: accepted}, same(tensors.TEXT_EMBEDDINGS))


def _carrier(tier: Tier) -> Tensor:
    """What every request has or brings about: it tells the batch.

    Not the prompt itself. When a model refuses a request, Triton 2.51 answers at once, gives the request's memory away
    and forgets the request if another model is still at work for it: one that is still queued would read rubbish and
    take the requests of others that it is batched with along, and the server would count the request as one in flight
    for ever. So models that may refuse run one after the other, and engines that none of them waits for run after the
    last of them.
    """
    return python.PROMPT_EMBEDDINGS if python.EMBEDDINGS in tier.features else tensors.INPUT_IDS


def _picture_carrier(tier: Tier) -> dict[str, str]:
    """The same for the preprocessor, which runs before the conditioner where that needs the picture, else after it."""
    if tier.starts_from_picture:
        return same(_carrier(tier))
    if python.EMBEDDINGS in tier.features:
        return same(tensors.GUIDANCE)
    return {tensors.INPUT_IDS.name: python.ACCEPTED_IDS.name}


def _kept(tier: Tier, parts: Models) -> dict[str, str]:
    """What the preprocessor reads only to hand it on."""
    if tier.pictures_last and without_control(tier, parts):
        return {tensors.MODEL_INPUT.name: at(tensors.MODEL_INPUT, 0)}
    return {}


def _handed_on(tier: Tier, parts: Models) -> dict[str, str]:
    """What engines wait for until the preprocessor, the last that may refuse, has accepted the request."""
    ids = tier.pictures_last and python.EMBEDDINGS not in tier.features
    return {
        **({python.ACCEPTED_IDS.name: _PREPARED_IDS} if ids else {}),
        **(same(python.ACCEPTED_INPUT) if _kept(tier, parts) else {}),
    }


def _reads_masked(tier: Tier, parts: Models) -> bool:
    """Whether the denoiser itself is told what to repaint."""
    return tier.task == python.INPAINT and bool(parts.facts.inpainting)


def _pictures_given(tier: Tier, parts: Models) -> Iterator[Tensor]:
    yield from (python.HEIGHT, python.WIDTH)
    if tier.starts_from_picture:
        yield from (*python.INPUT_IMAGE, *python.BLEND_MASK)
    if tier.task == python.INPAINT:
        yield from (*python.MASK, python.MASK_FEATHER)
    if python.IP_ADAPTER in tier.features:
        yield from (*python.IP_ADAPTER_IMAGE, *python.IP_ADAPTER_MASK)
    if python.CONTROLNET in tier.features:
        yield from (tensor for name in parts.control_nets for tensor in python.control_image(name))


def _pictures(tier: Tier, parts: Models) -> Iterator[Tensor]:
    if tier.starts_from_picture:
        yield tensors.PIXELS
    if tier.task == python.INPAINT:
        yield tensors.LATENT_MASK
    if _reads_masked(tier, parts):
        yield python.MASKED_PIXELS
    if python.IP_ADAPTER in tier.features:
        yield from (tensors.REFERENCE_PIXELS, tensors.IP_ADAPTER_REGION)
    if python.CONTROLNET in tier.features:
        yield from (python.control_pixels(name) for name in parts.control_nets)


def _encode_masked(parts: Models) -> Step:
    """The second use of the VAE's encoder."""
    return Step(
        parts.engines[Component.VAE_ENCODER],
        {tensors.PIXELS.name: python.MASKED_PIXELS.name},
        {
            tensors.LATENT_MEAN.name: python.MASKED_MEAN.name,
            tensors.LATENT_STD.name: python.MASKED_STD.name,
        },
    )


def _asked(tier: Tier, parts: Models) -> Iterator[Tensor]:
    """What the conditioner reads."""
    yield _carrier(tier)
    if python.EMBEDDINGS in tier.features:
        yield python.NEGATIVE_PROMPT_EMBEDDINGS
    yield from (python.SEED, python.GUIDANCE_SCALE, python.SCHEDULER, python.ETA)
    if parts.facts.guidance_rescale:
        yield python.GUIDANCE_RESCALE
    if tier.starts_from_picture:
        yield from (python.STRENGTH, tensors.LATENT_MEAN, tensors.LATENT_STD)
    else:
        yield from (python.HEIGHT, python.WIDTH)
    if _reads_masked(tier, parts):
        yield from (python.MASKED_MEAN, python.MASKED_STD)
    elif tier.task == python.INPAINT:
        yield tensors.LATENT_MASK
    if python.IP_ADAPTER in tier.features:
        yield python.IP_ADAPTER_WEIGHT
        if tier.starts_from_picture:
            yield tensors.REFERENCE_PIXELS
    if python.CONTROLNET in tier.features:
        yield from (tensor for name in parts.control_nets for tensor in python.control_numbers(name))
    yield from (tensor for tensor in finish(tier) if tensor in python.FINISH_NUMBERS)


def _conditions(tier: Tier, parts: Models) -> dict[str, str]:
    """What the conditioner gives."""
    maps = {python.table_of(tier.key).name: tensors.TABLE.name}
    maps |= {tensor.name: at(tensor, 0) for tensor in python.CARRIED}
    maps |= same(tensors.LEVELS, tensors.KEPT, python.STEP_MASK, tensors.GUIDANCE)
    if tier.draws:
        maps |= {python.noise_of(call).name: at(tensors.NOISE, call) for call in range(tier.calls)}
    else:
        maps |= same(python.NO_NOISE)
    if parts.facts.guidance_rescale:
        maps[tensors.GUIDANCE_RESCALE.name] = RESCALE
    if _reads_masked(tier, parts):
        maps |= same(tensors.MASKED_LATENT)
    if python.EMBEDDINGS in tier.features:
        maps[python.TEXT_EMBEDDINGS_GIVEN.name] = tensors.TEXT_EMBEDDINGS.name
    else:
        maps |= same(python.ACCEPTED_IDS)
    if python.CONTROLNET in tier.features:
        maps |= same(*(python.control_scales(name) for name in parts.control_nets))
    return maps | _references(tier, parts)


def _references(tier: Tier, parts: Models) -> dict[str, str]:
    """Reference pictures of no weight, where the denoiser reads some and the request brings none."""
    if not parts.facts.ip_adapter:
        return {}
    if python.IP_ADAPTER in tier.features:
        accepted = (python.ACCEPTED_PIXELS,) if tier.starts_from_picture else ()
        return same(tensors.IP_ADAPTER_SCALE, *accepted)
    return {
        tensors.IP_ADAPTER_SCALE.name: tensors.IP_ADAPTER_SCALE.name,
        python.NO_IMAGE_EMBEDDINGS.name: tensors.IMAGE_EMBEDDINGS.name,
        python.NO_REGION.name: tensors.IP_ADAPTER_REGION.name,
    }
