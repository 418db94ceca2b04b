"""Names of tensors inside an ensemble, and maps from a model's ports to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_contract import python_models, tensors

if TYPE_CHECKING:
    from diffusion_builder.repository.unroll.models import Models
    from diffusion_builder.repository.unroll.tier import Tier
    from diffusion_contract.tensors import Tensor

# The conditioner's output; a request's input of the same name is another tensor.
VALIDATED_RESCALE = "validated_guidance_rescale"


def identity_map(*tensors: Tensor) -> dict[str, str]:
    """Map of ports to tensors of the same names."""
    return {tensor.name: tensor.name for tensor in tensors}


def tensor_at(tensor: Tensor, call: int) -> str:
    """The tensor that denoiser call or scheduler step `call` reads."""
    return f"{tensor.name}_at_{call}"


def tensor_after(tensor: Tensor, calls: int) -> str:
    """The tensor that belongs to the preview after so many calls."""
    return f"{tensor.name}_after_{calls}"


def residuals_at(name: str, call: int) -> str:
    """Residuals of a ControlNet at this call."""
    return f"{tensors.RESIDUALS.name}_{name}_at_{call}"


def deep_features_at(call: int) -> dict[str, str]:
    """Deep features of a full call of the denoiser."""
    return {tensor.name: tensor_at(tensor, call) for tensor in (tensors.DEEP_FEATURES, tensors.NEGATIVE_DEEP_FEATURES)}


def needs_zero_residuals(tier: Tier, models: Models) -> bool:
    """Whether the denoiser reads residuals of ControlNets, and the request has no control images."""
    return bool(models.facts.controlnets) and python_models.CONTROLNET not in tier.features
