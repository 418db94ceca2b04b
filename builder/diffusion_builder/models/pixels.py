"""From decoded samples to pixels and files. Pure numpy and Pillow, so that it is tested without Triton."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from .postprocess_numbers import DEFAULT_QUALITY

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


def to_pixels(decoded: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map [B, 3, H, W] in [-1, 1] to uint8 [B, H, W, 3] as diffusers' VaeImageProcessor does."""
    unit = np.clip(decoded * np.float32(0.5) + np.float32(0.5), 0.0, 1.0)
    pixels: NDArray[Any] = (unit * np.float32(255.0)).round().astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def encode(image: Image.Image, file_format: str = "PNG", quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode one image.

    Args:
        image: mode RGB.
        file_format: one of `postprocess_numbers.FORMATS`.
        quality: 1 to 100, of JPEG and WebP; PNG keeps every bit anyway.
    """
    buffer = io.BytesIO()
    options = {} if file_format == "PNG" else {"quality": quality}
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()
