"""Unroll a tier: prologue from a request to the first tensors, denoising loop, epilogue from a latent to an image."""

from diffusion_builder.repository.unroll.ensemble import ensemble, json_ensemble
from diffusion_builder.repository.unroll.models import Models, models
from diffusion_builder.repository.unroll.needs import check_engines
from diffusion_builder.repository.unroll.tier import Tier

__all__ = ["Models", "Tier", "check_engines", "ensemble", "json_ensemble", "models"]
