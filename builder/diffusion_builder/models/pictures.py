"""From what a request sends as a picture to Pillow's pictures. The bytes are untrusted.

What is decoded equals diffusers' `load_image`: turned as EXIF says, then converted; an alpha channel is dropped.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .inputs import FORMATS, InputError, Read, one_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Checked on the header, before anything is decoded: a small file can say that it holds gigabytes.
MAX_PIXELS = 4096 * 4096
RGB, GRAY = "RGB", "L"
_CHANNELS = {RGB: 3, GRAY: 1}
_SHAPES = {RGB: "[B, H, W, 3] (red, green, blue)", GRAY: "[B, H, W]"}
# Cameras put a small second picture behind the first one; browsers show the first one too.
_CAMERA_FORMAT = "MPO"


def pictures(read: Read, name: str, batch: int, mode: str) -> list[Image.Image] | None:
    """The pictures that a request sends as `name` or as `name_file`, one for each sample; None without any.

    Args:
        read: the request.
        name: input with uint8 pixels; the one with encoded files has `_file` behind it.
        batch: samples of the request.
        mode: `RGB` or `GRAY`.

    Raises:
        InputError: both are sent, there are not as many as samples, or one is not a picture.
    """
    pixels, files = read(name), read(f"{name}_file")
    if pixels is not None and files is not None:
        raise InputError(f"{name} and {name}_file were both sent: send one of them")
    if pixels is not None:
        one_each(name, len(pixels), batch)
        return [from_pixels(name, sample, mode) for sample in pixels]
    if files is None:
        return None
    one_each(f"{name}_file", files.size, batch)
    return [decode(f"{name}_file", file, mode) for file in files.reshape(-1)]


def picture_groups(read: Read, name: str, batch: int, most: int) -> list[Sequence[Image.Image]] | None:
    """Up to `most` pictures for each sample: pixels [B, n, H, W, 3] or files [B, n]; None without any.

    Raises:
        InputError: both are sent, a count does not fit, or one is not a picture.
    """
    pixels, files = read(name), read(f"{name}_file")
    if pixels is not None and files is not None:
        raise InputError(f"{name} and {name}_file were both sent: send one of them")
    given = pixels if pixels is not None else files
    if given is None:
        return None
    one_each(name, len(given), batch)
    if given.ndim < 2 or not 1 <= given.shape[1] <= most:  # noqa: PLR2004 - the batch and the pictures
        raise InputError(f"{name} has the shape {list(given.shape)}: send 1 to {most} pictures a sample")
    if pixels is not None:
        return [[from_pixels(name, picture, RGB) for picture in sample] for sample in pixels]
    return [[decode(f"{name}_file", file, RGB) for file in sample] for sample in given]


def from_pixels(name: str, pixels: NDArray[Any], mode: str) -> Image.Image:
    """A picture from uint8 pixels [H, W, 3], or [H, W] for a mask.

    Raises:
        InputError: other dimensions or channels, empty, or too large.
    """
    if mode == GRAY and pixels.ndim == 3 and pixels.shape[-1] == 1:  # noqa: PLR2004 - height, width, channels
        pixels = pixels[..., 0]
    wanted = 3 if mode == RGB else 2
    if pixels.ndim != wanted or (mode == RGB and pixels.shape[-1] != _CHANNELS[RGB]):
        raise InputError(
            f"{name} has the shape {list(pixels.shape)} after the batch: send UINT8 {_SHAPES[mode]}, or the picture as "
            f"an encoded file in {name}_file"
        )
    if 0 in pixels.shape:
        raise InputError(f"{name} is {pixels.shape[1]} x {pixels.shape[0]} pixels: send at least one pixel")
    _check_size(name, pixels.shape[1], pixels.shape[0])
    return Image.fromarray(np.ascontiguousarray(pixels, np.uint8), mode=None)


def decode(name: str, data: object, mode: str) -> Image.Image:
    """A picture from an encoded file.

    Args:
        name: the input, for messages.
        data: PNG, JPEG or WebP.
        mode: `RGB` or `GRAY`.

    Raises:
        InputError: another format, broken, cut off, animated, or too large.
    """
    encoded = data if isinstance(data, bytes) else str(data).encode()
    if not encoded:
        raise InputError(f"{name} is empty: send a PNG, JPEG or WebP file")
    try:
        with warnings.catch_warnings():
            # Sizes are checked below, and a strange EXIF entry is no reason to refuse the pixels.
            warnings.simplefilter("ignore")
            return _decode(name, encoded, mode)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture that is read here: send a PNG, JPEG or WebP file") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large: send at most {MAX_PIXELS} pixels") from error
    except Exception as error:  # decoders fail on broken bytes in any way
        raise InputError(f"{name} is broken or cut off ({_reason(error)}): send the whole file") from error


def _decode(name: str, encoded: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
        _check_size(name, picture.width, picture.height)
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != _CAMERA_FORMAT:
            raise InputError(f"{name} is an animation of {frames} frames: send a single picture")
        turned = ImageOps.exif_transpose(picture)
        # Pillow would cut 16-bit grey off at 255, which leaves white.
        eight_bits = _from_16_bits(turned) if turned.mode.startswith("I") else turned
        return eight_bits.convert(mode)


def _from_16_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is {width} x {height} pixels: send at most {MAX_PIXELS} pixels, for example 4096 x 4096"
        )


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
