"""Uploaded images: what their headers say, without decoding them. Pure.

Nothing is decompressed here: a file of a few bytes can claim any size, and a text or colour profile in a PNG can
unpack to a thousand times of itself. The chunks that hold those are dropped before the file goes on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that pixels depend on, and the one with the orientation.
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
_PNG_ALPHA_TYPES = frozenset({4, 6})
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_WEBP_ANIMATION, _WEBP_ALPHA = 0x02, 0x10
# A file of empty chunks alone would take seconds to walk through.
_MAX_CHUNKS = 20_000


class BrokenImageError(ValueError):
    """A file that ends early or contradicts itself."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header of a file says.

    Args:
        format: png, jpeg or webp.
        width: pixels.
        height: pixels.
        has_alpha: whether it has an alpha channel or a transparent color.
        is_animated: whether it has several frames.
    """

    format: str
    width: int
    height: int
    has_alpha: bool = False
    is_animated: bool = False


def check_image(name: str, content: bytes, max_pixels: int) -> tuple[bytes, ImageHeader]:
    """Return the file to send on, and what its header says.

    Args:
        name: field of the request.
        content: the file.
        max_pixels: largest number of pixels.

    Raises:
        ApiError: no supported format, broken, animated or too large.
    """
    try:
        content, header = read_header(content)
    except (BrokenImageError, struct.error) as error:
        raise ApiError(
            f"{name} is broken or cut off ({error}): send the whole file", name, code="invalid_image"
        ) from error
    if header.is_animated:
        raise ApiError(f"{name} is an animation: send a single image", name, code="invalid_image")
    if not header.width or not header.height or header.width * header.height > max_pixels:
        raise ApiError(
            f"{name} is {header.width} x {header.height} pixels: send at most {max_pixels} pixels",
            name,
            code="image_too_large",
        )
    return content, header


def read_header(content: bytes) -> tuple[bytes, ImageHeader]:
    """Read the header of a PNG, JPEG or WebP file.

    Returns:
        The file, a PNG without chunks that hold no pixels, and its header.

    Raises:
        BrokenImageError: it is none of these, or ends early.
        struct.error: it ends early.
    """
    if content.startswith(PNG_SIGNATURE):
        return _read_png(content)
    if content.startswith(b"\xff\xd8\xff"):
        return content, _read_jpeg(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return content, _read_webp(content)
    raise BrokenImageError("not a PNG, JPEG or WebP file")


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk of a PNG with its first and last byte, up to the one that ends the file.

    Raises:
        BrokenImageError: the file ends within one.
        struct.error: the same.
    """
    position = len(PNG_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            raise BrokenImageError("a chunk is longer than the file")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise BrokenImageError(f"more than {_MAX_CHUNKS} chunks")


def _read_png(content: bytes) -> tuple[bytes, ImageHeader]:
    chunks = list(png_chunks(content))
    if chunks[0][0] != b"IHDR":
        raise BrokenImageError("the first chunk is not the header")
    width, height, _, color_type = struct.unpack_from(">IIBB", content, chunks[0][1] + 8)
    kinds = {kind for kind, _, _ in chunks}
    header = ImageHeader(
        "png", width, height, color_type in _PNG_ALPHA_TYPES or b"tRNS" in kinds, is_animated=b"acTL" in kinds
    )
    if kinds <= _PNG_CHUNKS:
        return content[: chunks[-1][2]], header
    pixels = [content[start:end] for kind, start, end in chunks if kind in _PNG_CHUNKS]
    return b"".join([PNG_SIGNATURE, *pixels]), header


def _read_jpeg(content: bytes) -> ImageHeader:
    position = 2
    while True:
        start, marker = struct.unpack_from(">BB", content, position)
        if start != 0xFF:  # noqa: PLR2004 - the byte before each marker
            raise BrokenImageError("a segment does not begin with a marker")
        if marker == start or marker in _JPEG_WITHOUT_LENGTH:
            position += 1 if marker == start else 2
            continue
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", content, position + 5)
            return ImageHeader("jpeg", width, height)
        position += 2 + max(2, *struct.unpack_from(">H", content, position + 2))


def _read_webp(content: bytes) -> ImageHeader:
    kind = content[12:16]
    if kind == b"VP8X":
        flags, low, middle, high, low2, middle2, high2 = struct.unpack_from("<B3x3B3B", content, 20)
        width, height = (1 + a + (b << 8) + (c << 16) for a, b, c in ((low, middle, high), (low2, middle2, high2)))
        return ImageHeader("webp", width, height, bool(flags & _WEBP_ALPHA), bool(flags & _WEBP_ANIMATION))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return ImageHeader("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return ImageHeader("webp", width & 0x3FFF, height & 0x3FFF)
    raise BrokenImageError("no image data behind its header")
