"""Whether the engines can serve the tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract import python_models
from diffusion_contract.enums import Component

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.model_facts import ModelFacts


def check_engines(
    tiers: Sequence[Tier], facts: ModelFacts, components: AbstractSet[Component], control_nets: Sequence[str]
) -> None:
    """Compare tiers with engines.

    Args:
        tiers: of all ensembles.
        facts: recorded with the engines.
        components: that have an engine.
        control_nets: that have an engine.

    Raises:
        BadInputError: naming the ensembles' task or feature and what is missing.
    """
    problems = [*_traits(facts, components, control_nets)]
    for tier in tiers:
        problems += [f"{tier.name}: {problem}" for problem in _tier(tier, facts, components)]
    if problems:
        raise BadInputError(Reason.COMPONENT_MISMATCH, problems[0])


def _traits(facts: ModelFacts, components: AbstractSet[Component], control_nets: Sequence[str]) -> Iterator[str]:
    if len(control_nets) != facts.controlnets:
        yield (
            f"the denoiser was exported for {facts.controlnets} ControlNets, but controlNets lists "
            f"{len(control_nets)}: export it with the option controlNets {len(control_nets)}"
        )
    if facts.pooled_width and Component.TEXT_ENCODER_2 not in components:
        yield "the denoiser reads the texts of two encoders, but the engine text_encoder_2 is missing"
    if Component.IMAGE_ENCODER in components and not facts.ip_adapter:
        yield "there is an image_encoder, but the denoiser was exported without the option ipAdapter"


def _tier(tier: Tier, facts: ModelFacts, components: AbstractSet[Component]) -> Iterator[str]:
    if facts.inpainting and tier.task != python_models.INPAINT:
        yield "the denoiser has input channels for mask and masked image: the only task it can do is inpaint"
    if tier.starts_from_image and Component.VAE_ENCODER not in components:
        yield f"{tier.task} needs the engine vae_encoder, which is missing"
    if python_models.CONTROLNET in tier.features and not facts.controlnets:
        yield "the feature controlnet needs at least one entry in controlNets"
    if (
        python_models.CONTROLNET not in tier.features
        and facts.controlnets
        and Component.ZERO_RESIDUALS not in components
    ):
        yield "a denoiser with ControlNets needs the engine zero_residuals for requests without, which is missing"
    if python_models.IP_ADAPTER in tier.features and not facts.ip_adapter:
        yield "the feature ip_adapter needs a denoiser that was exported with the option ipAdapter"
    if python_models.IP_ADAPTER in tier.features and Component.IMAGE_ENCODER not in components:
        yield "the feature ip_adapter needs the engine image_encoder, which is missing"
    yield from _acceleration(tier, facts, components)


def _acceleration(tier: Tier, facts: ModelFacts, components: AbstractSet[Component]) -> Iterator[str]:
    if tier.refiner_calls and (tier.starts_from_image or python_models.EMBEDDINGS in tier.features):
        yield "a refiner serves the task generate alone, with texts and not with embeddings"
    for variant in sorted(set(tier.denoisers) - components):
        yield f"acceleration needs the engine {variant}, which is missing"
    cache = tier.acceleration.deep_cache if tier.acceleration is not None else None
    layers = cache.layers if cache is not None else 0
    if facts.shallow_layers != layers:
        yield (
            f"the denoiser was exported with the option shallowLayers {facts.shallow_layers}, acceleration.deepCache "
            f"needs {layers}: export it again"
        )
