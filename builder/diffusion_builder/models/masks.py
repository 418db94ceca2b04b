"""Masks: soft, of any size, with feathered edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float32]
# Cubic convolution with a = -0.75, half way between two elements: torch's bicubic at even factors.
_HALF_WAY = np.array([-0.09375, 0.59375, 0.59375, -0.09375], np.float32)


def resize_mask(mask: Image.Image, height: int, width: int, feather: float = 0.0) -> Image.Image:
    """A mask at the size of the image.

    Args:
        mask: mode L, any size.
        height: in pixels.
        width: in pixels.
        feather: radius of a Gaussian in pixels of the result.

    Returns:
        Mode L. Resized as diffusers' VaeImageProcessor does, but not rounded to 0 or 255: masks are soft.
    """
    resized = mask if mask.size == (width, height) else mask.resize((width, height), Image.Resampling.LANCZOS)
    return resized.filter(ImageFilter.GaussianBlur(feather)) if feather > 0 else resized


def unit(masks: Sequence[Image.Image]) -> Floats:
    """Masks [B, 1, H, W] from 0 to 1."""
    stacked: Floats = np.stack([np.asarray(mask, np.float32)[None] for mask in masks]) / np.float32(255.0)
    return stacked


def at_latent(mask: Floats, factor: int) -> Floats:
    """Shrink [B, 1, H, W] to the latent's size as diffusers' `prepare_mask_latents` does: every `factor`th element."""
    return np.ascontiguousarray(mask[..., ::factor, ::factor])


def region_at_latent(mask: Floats, factor: int) -> Floats:
    """Shrink [B, 1, H, W] as diffusers' IPAdapterMaskProcessor does where attention has the latent's size.

    That is torch's bicubic interpolation without antialiasing: four elements around the middle of each square.
    """
    return _halfway(_halfway(mask, factor).swapaxes(-1, -2), factor).swapaxes(-1, -2)


def _halfway(mask: Floats, factor: int) -> Floats:
    if factor % 2:
        middle: Floats = mask[..., factor // 2 :: factor]
        return middle
    length = mask.shape[-1]
    first = np.arange(0, length, factor)[:, None] + factor // 2 - 2
    taps = np.clip(first + np.arange(4), 0, length - 1)
    shrunk: Floats = (mask[..., taps] * _HALF_WAY).sum(-1)
    return shrunk
