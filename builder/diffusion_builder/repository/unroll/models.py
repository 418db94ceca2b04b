"""The models that ensembles are made of, with the numbers of one checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from diffusion_builder.repository.graph import Port, TritonModel
from diffusion_contract import python_models, tensors
from diffusion_contract.enums import Component

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.model_facts import ModelFacts
    from diffusion_contract.tensors import Interface, Tensor


@dataclass(frozen=True)
class Models:
    """The models of a repository.

    Args:
        facts: the checkpoint's numbers.
        tokenizer: text to token ids.
        preprocessor: images of a request to tensors.
        conditioner: numbers of a request to first tensors.
        postprocessor: samples to images.
        engines: by component, except ControlNets.
        control_nets: by name, in the order in which the denoiser reads their residuals.
    """

    facts: ModelFacts
    tokenizer: TritonModel
    preprocessor: TritonModel
    conditioner: TritonModel
    postprocessor: TritonModel
    engines: Mapping[Component, TritonModel]
    control_nets: Mapping[str, TritonModel]


def models(
    facts: ModelFacts, components: Iterable[Component], control_nets: Sequence[str], tiers: Sequence[Tier]
) -> Models:
    """Give the contract the numbers of one checkpoint.

    Args:
        facts: the checkpoint's numbers.
        components: that have an engine.
        control_nets: names of the ControlNets.
        tiers: all ensembles of the repository.
    """
    keys = tuple(dict.fromkeys(tier.key for tier in tiers))
    noise_calls = max((tier.calls for tier in tiers if tier.is_stochastic), default=0)
    control = tensors.interface(Component.CONTROLNET, asdict(facts))
    conditioner = python_models.conditioner(keys, noise_calls, control_nets)
    if facts.pooled_width:
        conditioner = python_models.with_pooled(conditioner)
    if facts.refiner_text_width:
        conditioner = python_models.with_refiner(conditioner)
    postprocessor = python_models.POSTPROCESSOR
    if Component.SAFETY_CHECKER in components:
        postprocessor = python_models.with_flag(postprocessor)
    return Models(
        facts,
        _model(python_models.TOKENIZER_NAME, python_models.tokenizer(asdict(facts)), facts),
        _model(python_models.PREPROCESSOR_NAME, python_models.preprocessor(control_nets), facts),
        _model(python_models.CONDITIONER_NAME, conditioner, facts),
        _model(python_models.POSTPROCESSOR_NAME, postprocessor, facts),
        {name: _engine(name, facts) for name in components},
        {name: _model(python_models.control_model(name), control, facts) for name in control_nets},
    )


def port(tensor: Tensor, facts: ModelFacts) -> Port:
    """A tensor with the numbers of one checkpoint."""
    return Port(tensor.name, tensor.dtype, facts.dims(tensor), tensor.optional)


def _engine(component: Component, facts: ModelFacts) -> TritonModel:
    return _model(tensors.MODEL_NAMES[component], tensors.interface(component, asdict(facts)), facts)


def _model(name: str, interface: Interface, facts: ModelFacts) -> TritonModel:
    inputs = tuple(port(tensor, facts) for tensor in interface.inputs)
    return TritonModel(name, inputs, tuple(port(tensor, facts) for tensor in interface.outputs))
