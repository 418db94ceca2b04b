"""Unroll a tier: tokenizer, text encoder, conditioner, N times (denoiser, scheduler step), decoder, postprocessor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder import contract
from diffusion_builder.contract import Component, Facts, Interface, Tensor
from diffusion_builder.graph import Ensemble, Model, Port, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

# What each scheduler step hands to the next, besides its own table.
_CARRIED = (contract.STATE, contract.MODEL_INPUT, contract.TIMESTEP, contract.STEP_INDEX)
_FIXED = (contract.TABLE, contract.TIMESTEPS)


@dataclass(frozen=True)
class Tier:
    """What an ensemble is made for.

    Args:
        task: `generate`.
        steps: the step count that users ask for and that the ensemble's name says.
        calls: how often the denoiser is called for it; some schedulers call it more than once a step.
    """

    task: str
    steps: int
    calls: int


@dataclass(frozen=True)
class Models:
    """The models of a repository that ensembles are made of."""

    tokenizer: Model
    conditioner: Model
    postprocessor: Model
    engines: Mapping[Component, Model]

    def all(self) -> tuple[Model, ...]:
        """Every model, in the order of their names."""
        models = (self.tokenizer, self.conditioner, self.postprocessor, *self.engines.values())
        return tuple(sorted(models, key=lambda model: model.name))


def models(facts: Facts, tiers: tuple[int, ...]) -> Models:
    """Give the contract the numbers of one checkpoint.

    Args:
        facts: the checkpoint's numbers.
        tiers: all step counts of the repository.
    """
    return Models(
        _model(contract.TOKENIZER_NAME, contract.TOKENIZER, facts),
        _model(contract.CONDITIONER_NAME, contract.conditioner(tiers), facts),
        _model(contract.POSTPROCESSOR_NAME, contract.POSTPROCESSOR, facts),
        {name: _model(contract.MODEL_NAMES[name], contract.ENGINES[name], facts) for name in contract.TEXT_TO_IMAGE},
    )


def ensemble(tier: Tier, parts: Models, facts: Facts) -> Ensemble:
    """Unroll one tier.

    Args:
        tier: task, steps and denoiser calls.
        parts: the repository's models.
        facts: the checkpoint's numbers.
    """
    unrolled = [_tokenize(parts), _encode(parts), _condition(parts, tier.steps)]
    for index in range(tier.calls):
        last = index == tier.calls - 1
        unrolled += [_denoise(parts, index), _advance(parts, index, last=last)]
    unrolled += [_decode(parts), _postprocess(parts)]
    return Ensemble(
        contract.ensemble_name(tier.task, tier.steps),
        tuple(_port(tensor, facts) for tensor in contract.REQUEST_INPUTS),
        tuple(_port(tensor, facts) for tensor in contract.REQUEST_OUTPUTS),
        tuple(unrolled),
    )


def _port(tensor: Tensor, facts: Facts) -> Port:
    return Port(tensor.name, tensor.dtype, facts.dims(tensor), tensor.optional)


def _model(name: str, interface: Interface, facts: Facts) -> Model:
    inputs = tuple(_port(tensor, facts) for tensor in interface.inputs)
    return Model(name, inputs, tuple(_port(tensor, facts) for tensor in interface.outputs))


def _same(*tensors: Tensor) -> dict[str, str]:
    return {tensor.name: tensor.name for tensor in tensors}


def _at(tensor: Tensor, index: int) -> str:
    """The name inside the ensemble of a tensor that step `index` reads."""
    return f"{tensor.name}_at_{index}"


def _tokenize(parts: Models) -> Step:
    return Step(parts.tokenizer, _same(contract.PROMPT, contract.NEGATIVE_PROMPT), _same(contract.INPUT_IDS))


def _encode(parts: Models) -> Step:
    model = parts.engines[Component.TEXT_ENCODER]
    return Step(model, _same(contract.INPUT_IDS), _same(contract.TEXT_EMBEDDINGS))


def _condition(parts: Models, steps: int) -> Step:
    first = {contract.for_tier(tensor, steps).name: _at(tensor, 0) for tensor in _CARRIED[:-1]}
    fixed = {contract.for_tier(tensor, steps).name: tensor.name for tensor in _FIXED}
    shared = {contract.GUIDANCE.name: contract.GUIDANCE.name, contract.STEP_INDEX.name: _at(contract.STEP_INDEX, 0)}
    inputs = _same(contract.PROMPT, contract.SEED, contract.GUIDANCE_SCALE, contract.HEIGHT, contract.WIDTH)
    return Step(parts.conditioner, inputs, shared | first | fixed)


def _denoise(parts: Models, index: int) -> Step:
    read = {tensor.name: _at(tensor, index) for tensor in (contract.MODEL_INPUT, contract.TIMESTEP)}
    return Step(
        parts.engines[Component.DENOISER],
        read | _same(contract.TEXT_EMBEDDINGS, contract.GUIDANCE),
        {contract.MODEL_OUTPUT.name: _at(contract.MODEL_OUTPUT, index)},
    )


def _advance(parts: Models, index: int, *, last: bool) -> Step:
    read = (contract.STATE, contract.MODEL_OUTPUT, contract.STEP_INDEX)
    following = {contract.following(tensor).name: _at(tensor, index + 1) for tensor in _CARRIED}
    return Step(
        parts.engines[Component.SCHEDULER_STEP],
        {tensor.name: _at(tensor, index) for tensor in read} | _same(*_FIXED),
        # The last step's state is read by nobody; its latent is what the others' is not: an end.
        _same(contract.LATENT) if last else following,
    )


def _decode(parts: Models) -> Step:
    return Step(parts.engines[Component.VAE_DECODER], _same(contract.LATENT), _same(contract.DECODED))


def _postprocess(parts: Models) -> Step:
    outputs = _same(contract.IMAGE, contract.ENCODED_IMAGE)
    return Step(parts.postprocessor, _same(contract.DECODED), outputs)
