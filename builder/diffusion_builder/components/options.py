"""Options of an export by component; without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import SHALLOW_DENOISERS, Component, PromptWeighting
from diffusion_contract.exports import APPLIES

if TYPE_CHECKING:
    from diffusion_contract.exports import ExportOptions


def check(component: Component, options: ExportOptions) -> None:
    """Reject options that the component does not have.

    Raises:
        BadInputError: an option that would be ignored, or one that is needed is missing.
    """
    for name in options.non_defaults():
        if component not in APPLIES[name]:
            supported = sorted(option for option, components in APPLIES.items() if component in components)
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"{component} has no option {name}; it has: {', '.join(supported) or 'none'}"
            )
    if options.image_encoder is not None and options.ip_adapter is None:
        raise BadInputError(Reason.INVALID_ARGUMENT, "imageEncoder is that of an IP-Adapter: give ipAdapter too")
    if component in SHALLOW_DENOISERS and not options.shallow_layers:
        raise BadInputError(
            Reason.INVALID_ARGUMENT, f"{component} needs the option shallowLayers: how many layers it computes"
        )
    if options.shallow_layers and options.control_nets:
        raise BadInputError(
            Reason.INVALID_ARGUMENT, "shallowLayers and controlNets do not go together: leave out one of both"
        )
    if options.refiner and (options.long_prompts or options.prompt_weighting is not PromptWeighting.NONE):
        raise BadInputError(
            Reason.INVALID_ARGUMENT, "refiner goes with neither longPrompts nor promptWeighting: leave out one of both"
        )
    if component is Component.CONTROLNET and options.control_net is None:
        raise BadInputError(
            Reason.INVALID_ARGUMENT, "controlnet needs the option controlNet: the digest of the ControlNet's source"
        )
