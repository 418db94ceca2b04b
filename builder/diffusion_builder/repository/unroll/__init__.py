"""Unroll a tier: what makes a request's first tensors, the denoising loop, and what makes pictures of its result."""

from diffusion_builder.repository.unroll.ensemble import ensemble
from diffusion_builder.repository.unroll.models import Models, models
from diffusion_builder.repository.unroll.needs import check_needs
from diffusion_builder.repository.unroll.tier import Tier

__all__ = ["Models", "Tier", "check_needs", "ensemble", "models"]
