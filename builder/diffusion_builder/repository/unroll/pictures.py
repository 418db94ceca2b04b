"""Everything behind a latent: decoder, safety checker, postprocessor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository import python_models as python
from diffusion_builder.repository.graph import Step
from diffusion_builder.repository.unroll.wiring import after, same
from diffusion_contract import tensors
from diffusion_contract.tensors import Component

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.tensors import Tensor


def result(tier: Tier, parts: Models) -> Iterator[Step]:
    """The picture that was asked for."""
    names = same(tensors.LATENT, tensors.DECODED, tensors.FLAGGED)
    yield from _decoded(parts, names)
    yield Step(parts.postprocessor, _developed(tier, parts, names), same(python.IMAGE, python.ENCODED_IMAGE))


def preview(calls: int, tier: Tier, parts: Models) -> Iterator[Step]:
    """The picture as it would be after so many calls; Triton leaves these steps out unless a request asks for it."""
    names = {tensor.name: after(tensor, calls) for tensor in (tensors.DECODED, tensors.FLAGGED)}
    names[tensors.LATENT.name] = after(tensors.PREVIEW_LATENT, calls)
    yield from _decoded(parts, names)
    shown = {python.ENCODED_IMAGE.name: python.preview(calls).name}
    yield Step(parts.postprocessor, _developed(tier, parts, names), shown)


def _decoded(parts: Models, names: Mapping[str, str]) -> Iterator[Step]:
    yield Step(parts.engines[Component.VAE_DECODER], _of(names, tensors.LATENT), _of(names, tensors.DECODED))
    if Component.SAFETY_CHECKER in parts.engines:
        checker = parts.engines[Component.SAFETY_CHECKER]
        yield Step(checker, _of(names, tensors.DECODED), _of(names, tensors.FLAGGED))


def _developed(tier: Tier, parts: Models, names: Mapping[str, str]) -> dict[str, str]:
    checked = (tensors.FLAGGED,) if Component.SAFETY_CHECKER in parts.engines else ()
    return _of(names, tensors.DECODED, *checked) | same(*finish(tier))


def _of(names: Mapping[str, str], *tensors: Tensor) -> dict[str, str]:
    return {tensor.name: names[tensor.name] for tensor in tensors}


def finish(tier: Tier) -> Iterator[Tensor]:
    """What a request may ask of the postprocessor."""
    if tier.starts_from_picture:
        yield from python.BLENDING
    if tier.task == python.INPAINT:
        yield from (*python.MASK, python.PASTE_BACK)
    yield from (*python.FINISH, *python.FORMAT)
