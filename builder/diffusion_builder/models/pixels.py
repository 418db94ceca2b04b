"""From decoded samples to pixels and files. Pure numpy and Pillow, so that it is tested without Triton."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_pixels(decoded: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map [B, 3, H, W] in [-1, 1] to uint8 [B, H, W, 3] as diffusers' VaeImageProcessor does."""
    unit = np.clip(decoded * np.float32(0.5) + np.float32(0.5), 0.0, 1.0)
    pixels: NDArray[Any] = (unit * np.float32(255.0)).round().astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode one picture [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
