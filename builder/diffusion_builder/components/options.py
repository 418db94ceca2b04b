"""What an export can be asked for besides the component, as JSON; without torch."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from diffusion_builder.components.around import NEEDED
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.tensors import MAX_CONTROLNETS, Component

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Precision(StrEnum):
    """Element type of weights and arithmetic inside a graph; its inputs and outputs stay as the contract says."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class LoraOption(_Frozen):
    """A LoRA by the digest of its source, and how much of it is added."""

    source: Digest
    weight: float = Field(default=1.0, allow_inf_nan=False)


class ExportOptions(_Frozen):
    """Options of one export; each applies to some components only.

    Args:
        clip_skip: last layers of the text encoder to leave out, as diffusers counts them.
        long_prompts: prompts may have several windows of tokens; belongs to all that read them.
        guidance_rescale: the denoiser has an input for it (arXiv 2305.08891, section 3.4).
        control_nets: ControlNets whose residuals the denoiser adds.
        control_net: source of the ControlNet that is exported.
        ip_adapter: source of the IP-Adapter, for the denoiser and its image encoder.
        image_encoder: source of the image encoder, where it lies neither beside the IP-Adapter nor in the checkpoint.
        loras: merged into text encoder and denoiser.
        around: sources of the other components, where the component's own lacks or differs from what is served; the
            first one that has a part counts.
    """

    clip_skip: int = Field(default=0, ge=0)
    long_prompts: bool = False
    guidance_rescale: bool = False
    control_nets: int = Field(default=0, ge=0, le=MAX_CONTROLNETS)
    control_net: Digest | None = None
    ip_adapter: Digest | None = None
    image_encoder: Digest | None = None
    loras: tuple[LoraOption, ...] = ()
    around: tuple[Digest, ...] = ()

    def given(self, without: Collection[str] = ()) -> dict[str, Any]:
        """The options that differ from their defaults, by their JSON names."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(without))


_APPLIES: Mapping[str, frozenset[Component]] = {
    "clipSkip": frozenset({Component.TEXT_ENCODER}),
    "longPrompts": frozenset({Component.TEXT_ENCODER, Component.DENOISER, Component.CONTROLNET}),
    "guidanceRescale": frozenset({Component.DENOISER}),
    "controlNets": frozenset({Component.DENOISER}),
    "controlNet": frozenset({Component.CONTROLNET}),
    "ipAdapter": frozenset({Component.DENOISER, Component.IMAGE_ENCODER}),
    "imageEncoder": frozenset({Component.DENOISER, Component.IMAGE_ENCODER}),
    "loras": frozenset({Component.DENOISER, Component.TEXT_ENCODER}),
    "around": frozenset(NEEDED),
}


def check(component: Component, options: ExportOptions) -> None:
    """Refuse options that the component does not have.

    Raises:
        BadInputError: an option that would be ignored, or one that is needed is missing.
    """
    for name in options.given():
        if component not in _APPLIES[name]:
            known = sorted(option for option, components in _APPLIES.items() if component in components)
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"{component} has no option {name}; it has: {', '.join(known) or 'none'}"
            )
    if options.image_encoder is not None and options.ip_adapter is None:
        raise BadInputError(Reason.INVALID_ARGUMENT, "imageEncoder is that of an IP-Adapter: give ipAdapter too")
    if component is Component.CONTROLNET and options.control_net is None:
        raise BadInputError(
            Reason.INVALID_ARGUMENT, "controlnet needs the option controlNet: the digest of the ControlNet's source"
        )
