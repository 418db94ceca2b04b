"""Everything behind a latent: decoder, safety checker, postprocessor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder import contract
from diffusion_builder import python_models as python
from diffusion_builder.contract import Component
from diffusion_builder.graph import Step
from diffusion_builder.unroll.wiring import after, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from diffusion_builder.contract import Tensor
    from diffusion_builder.unroll.models import Models
    from diffusion_builder.unroll.tier import Tier


def result(tier: Tier, parts: Models) -> Iterator[Step]:
    """The picture that was asked for."""
    names = same(contract.LATENT, contract.DECODED, contract.FLAGGED)
    yield from _decoded(parts, names)
    yield Step(parts.postprocessor, _developed(tier, parts, names), same(python.IMAGE, python.ENCODED_IMAGE))


def preview(calls: int, tier: Tier, parts: Models) -> Iterator[Step]:
    """The picture as it would be after so many calls; Triton leaves these steps out unless a request asks for it."""
    names = {tensor.name: after(tensor, calls) for tensor in (contract.DECODED, contract.FLAGGED)}
    names[contract.LATENT.name] = after(contract.PREVIEW_LATENT, calls)
    yield from _decoded(parts, names)
    shown = {python.ENCODED_IMAGE.name: python.preview(calls).name}
    yield Step(parts.postprocessor, _developed(tier, parts, names), shown)


def _decoded(parts: Models, names: Mapping[str, str]) -> Iterator[Step]:
    yield Step(parts.engines[Component.VAE_DECODER], _of(names, contract.LATENT), _of(names, contract.DECODED))
    if Component.SAFETY_CHECKER in parts.engines:
        checker = parts.engines[Component.SAFETY_CHECKER]
        yield Step(checker, _of(names, contract.DECODED), _of(names, contract.FLAGGED))


def _developed(tier: Tier, parts: Models, names: Mapping[str, str]) -> dict[str, str]:
    checked = (contract.FLAGGED,) if Component.SAFETY_CHECKER in parts.engines else ()
    return _of(names, contract.DECODED, *checked) | same(*finish(tier))


def _of(names: Mapping[str, str], *tensors: Tensor) -> dict[str, str]:
    return {tensor.name: names[tensor.name] for tensor in tensors}


def finish(tier: Tier) -> Iterator[Tensor]:
    """What a request may ask of the postprocessor."""
    if tier.starts_from_picture:
        yield from python.BLENDING
    if tier.task == python.INPAINT:
        yield from (*python.MASK, python.PASTE_BACK)
    yield from (*python.FINISH, *python.FORMAT)
