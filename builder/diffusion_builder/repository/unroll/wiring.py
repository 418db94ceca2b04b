"""Names of tensors inside an ensemble, and maps from a model's ports to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.repository import python_models as python
from diffusion_contract import tensors

if TYPE_CHECKING:
    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.tensors import Tensor

# The conditioner's output; a request's input of the same name is another tensor.
RESCALE = "guidance_rescale_checked"


def same(*tensors: Tensor) -> dict[str, str]:
    """Ports whose tensors have their names."""
    return {tensor.name: tensor.name for tensor in tensors}


def at(tensor: Tensor, call: int) -> str:
    """The tensor that denoiser call or scheduler step `call` reads."""
    return f"{tensor.name}_at_{call}"


def after(tensor: Tensor, calls: int) -> str:
    """The tensor that belongs to the preview after so many calls."""
    return f"{tensor.name}_after_{calls}"


def residuals(name: str, call: int) -> str:
    """What a ControlNet says at this call."""
    return f"{tensors.RESIDUALS.name}_{name}_at_{call}"


def without_control(tier: Tier, parts: Models) -> bool:
    """Whether the denoiser reads what ControlNets say, and the request has none."""
    return bool(parts.facts.controlnets) and python.CONTROLNET not in tier.features
