"""Guidance as an embedding beside the timestep's, which UNets that were distilled with it read (arXiv 2210.03142)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

# As diffusers' get_guidance_scale_embedding.
_FACTOR, _LARGEST_PERIOD = 1000.0, 10000.0


def embed(guidance: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of how much the guidance exceeds 1.

    Args:
        guidance: [B, 1], at least 1.
        width: features.

    Returns:
        [B, width].
    """
    half = width // 2
    periods = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(_LARGEST_PERIOD) / (half - 1)))
    angles = (guidance - 1) * _FACTOR * periods
    return functional.pad(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1), (0, width % 2))
