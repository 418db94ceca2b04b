"""Masks of the OpenAI API in the form that the pipeline reads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from diffusion_gateway.errors import ApiError

if TYPE_CHECKING:
    from diffusion_gateway.image_files import ImageHeader

_OPAQUE = 255


def convert_mask(content: bytes, header: ImageHeader) -> bytes:
    """Return a file that is white where the image is repainted.

    The OpenAI API repaints where a mask is transparent. A mask without transparent pixels is the pipeline's own kind:
    white is repainted, black is preserved.

    Args:
        content: PNG, JPEG or WebP, of a size that was checked.
        header: its header.

    Raises:
        ApiError: the file is broken.
    """
    if not header.has_alpha:
        return content
    try:
        alpha = _alpha(content, header.format)
    except (OSError, SyntaxError, ValueError) as error:
        raise ApiError(
            f"mask is broken or cut off ({error}): send the whole file", "mask", code="invalid_image"
        ) from error
    if alpha.getextrema() == (_OPAQUE, _OPAQUE):
        return content
    file = io.BytesIO()
    ImageOps.invert(alpha).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _alpha(content: bytes, file_format: str) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=[file_format.upper()]) as image:
        has_channel = image.mode in {"RGBA", "LA"}
        return (image if has_channel else image.convert("RGBA")).getchannel("A")
