"""All residuals of a ControlNet as one tensor: see docs/adr/0004."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diffusion_builder.components.base import cfg_batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Channels and level of each residual; level n is n times halved.
Layout = tuple[tuple[int, int], ...]


def layout(config: Mapping[str, Any]) -> Layout:
    """The residuals of a UNet with this configuration: those of the down blocks, then the middle one.

    Source of the order: diffusers' UNet2DConditionModel.forward.
    """
    channels = config["block_out_channels"]
    layers = config.get("layers_per_block", 2)
    per_block = layers if isinstance(layers, list) else [layers] * len(channels)
    last = len(channels) - 1
    levels = [(channels[0], 0)]
    for level, (width, count) in enumerate(zip(channels, per_block, strict=True)):
        levels += [(width, level)] * count
        if level < last:
            levels.append((width, level + 1))
    return (*levels, (channels[last], last))


def length(parts: Layout, height: int, width: int) -> int:
    """Elements of all residuals of one sample, for a latent of this size."""
    sizes = level_sizes(height, width, max(level for _, level in parts))
    return sum(channels * sizes[level][0] * sizes[level][1] for channels, level in parts)


def pack(residuals: Sequence[torch.Tensor]) -> torch.Tensor:
    """[2B, C, h, w] each → [B, 2, R]."""
    flat = torch.cat([residual.flatten(1) for residual in residuals], dim=1)
    return torch.stack(flat.chunk(2), dim=1)


def unpack(packed: torch.Tensor, parts: Layout, height: int, width: int) -> list[torch.Tensor]:
    """[B, 2, R] → [2B, C, h, w] each.

    Args:
        packed: as `pack` made it.
        parts: what is in it.
        height: of the latent.
        width: of the latent.
    """
    flat = cfg_batch(packed)
    sizes = level_sizes(height, width, max(level for _, level in parts))
    tensors, begin = [], 0
    for channels, level in parts:
        high, wide = sizes[level]
        end = begin + channels * high * wide
        tensors.append(flat[:, begin:end].reshape(-1, channels, high, wide))
        begin = end
    return tensors


def level_sizes(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """A latent's size, half of it, and so on: what a UNet works on at each level."""
    sizes = [(height, width)]
    for _ in range(times):
        # Convolutions of stride 2 with padding 1 round up.
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes
