"""Options of one export: the JSON that the stage `export` is given besides source, component and precision."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field

from diffusion_contract.base import ApiModel
from diffusion_contract.enums import (
    DENOISERS,
    LOOP_DENOISERS,
    UNGUIDED_DENOISERS,
    Component,
    ModelFamily,
    PromptWeighting,
)
from diffusion_contract.limits import DIGEST_PATTERN
from diffusion_contract.tensors import MAX_CONTROLNETS

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]


class LoraOption(ApiModel):
    """A LoRA by the digest of its source, and how much of it is added."""

    source: Digest
    weight: float = Field(default=1.0, allow_inf_nan=False)


class ExportOptions(ApiModel):
    """Options of one export; each applies to some components only.

    Attributes:
        clip_skip: last layers of the text encoder to leave out, as diffusers counts them.
        long_prompts: prompts may have several windows of tokens; belongs to all that read them.
        guidance_rescale: the denoiser has an input for it (arXiv 2305.08891, section 3.4).
        control_nets: ControlNets whose residuals the denoiser adds.
        control_net: source of the ControlNet that is exported.
        ip_adapter: source of the IP-Adapter, for the denoiser and its image encoder.
        image_encoder: source of the image encoder, where it lies neither beside the IP-Adapter nor in the checkpoint.
        loras: merged into text encoder and denoiser.
        shape_sources: sources of the other components, where the component's own lacks or differs from what is served;
            the first one that has a subfolder counts.
        family: architecture that the checkpoint must be of.
        shallow_layers: layers of the last up block that a shallow denoiser computes anew. A full one hands out what
            enters them, and a shallow one has no others.
        prompt_weighting: syntax of weights in prompts.
        refiner: whether the second text encoder also gives what a refiner reads.
    """

    clip_skip: int = Field(default=0, ge=0)
    long_prompts: bool = False
    guidance_rescale: bool = False
    control_nets: int = Field(default=0, ge=0, le=MAX_CONTROLNETS)
    control_net: Digest | None = None
    ip_adapter: Digest | None = None
    image_encoder: Digest | None = None
    loras: tuple[LoraOption, ...] = ()
    shape_sources: tuple[Digest, ...] = ()
    family: ModelFamily = ModelFamily.STABLE_DIFFUSION
    shallow_layers: int = Field(default=0, ge=0)
    prompt_weighting: PromptWeighting = PromptWeighting.NONE
    refiner: bool = False

    def non_defaults(self, without: Collection[str] = ()) -> dict[str, Any]:
        """The options that differ from their defaults, by their JSON names."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(without))


# Components whose profile needs sizes that others decide: which of them.
SHAPED: Mapping[Component, tuple[str, ...]] = {
    Component.TEXT_ENCODER_2: ("first_text_width",),
    Component.CONTROLNET: ("text_length",),
    Component.ZERO_RESIDUALS: ("pixels_per_latent",),
    **dict.fromkeys(LOOP_DENOISERS, ("text_length", "pixels_per_latent")),
    Component.SCHEDULER_STEP: ("channels", "pixels_per_latent"),
    # Nothing is recorded, but another latent than the checkpoint's is rejected.
    Component.PREVIEW_DECODER: (),
}

_TEXT_ENCODERS = frozenset({Component.TEXT_ENCODER, Component.TEXT_ENCODER_2})

APPLIES: Mapping[str, frozenset[Component]] = {
    "clipSkip": _TEXT_ENCODERS,
    "longPrompts": frozenset({*DENOISERS, Component.CONTROLNET, *_TEXT_ENCODERS}),
    "promptWeighting": _TEXT_ENCODERS,
    "guidanceRescale": frozenset(LOOP_DENOISERS) - UNGUIDED_DENOISERS,
    "controlNets": frozenset(DENOISERS),
    "controlNet": frozenset({Component.CONTROLNET}),
    "ipAdapter": frozenset({*DENOISERS, Component.IMAGE_ENCODER}),
    "imageEncoder": frozenset({*DENOISERS, Component.IMAGE_ENCODER}),
    "loras": frozenset({*DENOISERS, *_TEXT_ENCODERS}),
    "shapeSources": frozenset(SHAPED),
    "family": frozenset({*LOOP_DENOISERS, Component.CONTROLNET, *_TEXT_ENCODERS}),
    "shallowLayers": frozenset(DENOISERS),
    "refiner": frozenset({Component.TEXT_ENCODER_2}),
}
"""Components that an option applies to."""
