"""From the images of a request to Pillow's images. The bytes are untrusted.

What is decoded equals diffusers' `load_image`: rotated by EXIF, then converted; an alpha channel is dropped.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InvalidRequest
from .postprocess_numbers import FORMATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .python_models import ImageInput
    from .request_inputs import RequestInputs

# Checked on the header, before anything is decoded: a small file can claim to hold gigabytes.
MAX_PIXELS = 4096 * 4096
RGB, GRAY = "RGB", "L"
_CHANNELS = {RGB: 3, GRAY: 1}
_SHAPES = {RGB: "[B, H, W, 3] (red, green, blue)", GRAY: "[B, H, W]"}
# Cameras put a small second image behind the first one; browsers show the first one too.
_CAMERA_FORMAT = "MPO"


def read_images(inputs: RequestInputs, image_input: ImageInput, mode: str) -> list[Image.Image] | None:
    """The images of a request, one for each sample; None without any.

    Args:
        inputs: the request.
        image_input: uint8 pixels or encoded files.
        mode: `RGB` or `GRAY`.

    Raises:
        InvalidRequest: both are sent, there are not as many as samples, or one is not an image.
    """
    pixels, files = _read_either(inputs, image_input)
    if pixels is not None:
        inputs.require_one_per_sample(image_input.pixels.name, len(pixels))
        return [from_pixels(image_input.pixels.name, sample, mode) for sample in pixels]
    if files is None:
        return None
    inputs.require_one_per_sample(image_input.file.name, files.size)
    return [decode(image_input.file.name, file, mode) for file in files.reshape(-1)]


def read_image_groups(
    inputs: RequestInputs, image_input: ImageInput, max_images: int
) -> list[Sequence[Image.Image]] | None:
    """Up to `max_images` images for each sample: pixels [B, n, H, W, 3] or files [B, n]; None without any.

    Raises:
        InvalidRequest: both are sent, a count does not fit, or one is not an image.
    """
    pixels, files = _read_either(inputs, image_input)
    values = pixels if pixels is not None else files
    if values is None:
        return None
    name = (image_input.pixels if pixels is not None else image_input.file).name
    inputs.require_one_per_sample(name, len(values))
    if values.ndim < 2 or not 1 <= values.shape[1] <= max_images:  # noqa: PLR2004 - the batch and the images
        raise InvalidRequest(f"{name} has the shape {list(values.shape)}: send 1 to {max_images} images a sample")
    if pixels is not None:
        return [[from_pixels(name, image, RGB) for image in sample] for sample in values]
    return [[decode(name, file, RGB) for file in sample] for sample in values]


def _read_either(inputs: RequestInputs, image_input: ImageInput) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    pixels, files = inputs.read(image_input.pixels.name), inputs.read(image_input.file.name)
    if pixels is not None and files is not None:
        raise InvalidRequest(f"{image_input.pixels.name} and {image_input.file.name} were both sent: send one of them")
    return pixels, files


def from_pixels(name: str, pixels: NDArray[Any], mode: str) -> Image.Image:
    """An image from uint8 pixels [H, W, 3], or [H, W] for a mask.

    Raises:
        InvalidRequest: other dimensions or channels, empty, or too large.
    """
    if mode == GRAY and pixels.ndim == 3 and pixels.shape[-1] == 1:  # noqa: PLR2004 - height, width, channels
        pixels = pixels[..., 0]
    dimensions = 3 if mode == RGB else 2
    if pixels.ndim != dimensions or (mode == RGB and pixels.shape[-1] != _CHANNELS[RGB]):
        raise InvalidRequest(
            f"{name} has the shape {list(pixels.shape)} after the batch: send UINT8 {_SHAPES[mode]}, or the image as "
            f"an encoded file in {name}_file"
        )
    if 0 in pixels.shape:
        raise InvalidRequest(f"{name} is {pixels.shape[1]} x {pixels.shape[0]} pixels: send at least one pixel")
    _check_size(name, pixels.shape[1], pixels.shape[0])
    return Image.fromarray(np.ascontiguousarray(pixels, np.uint8), mode=None)


def decode(name: str, file: object, mode: str) -> Image.Image:
    """An image from an encoded file.

    Args:
        name: the input, for messages.
        file: PNG, JPEG or WebP.
        mode: `RGB` or `GRAY`.

    Raises:
        InvalidRequest: another format, broken, cut off, animated, or too large.
    """
    encoded = file if isinstance(file, bytes) else str(file).encode()
    if not encoded:
        raise InvalidRequest(f"{name} is empty: send a PNG, JPEG or WebP file")
    try:
        with warnings.catch_warnings():
            # Sizes are checked below, and a strange EXIF entry is no reason to reject the pixels.
            warnings.simplefilter("ignore")
            return _decode(name, encoded, mode)
    except InvalidRequest:
        raise
    except UnidentifiedImageError as error:
        raise InvalidRequest(f"{name} is not a supported image format: send a PNG, JPEG or WebP file") from error
    except Image.DecompressionBombError as error:
        raise InvalidRequest(f"{name} is too large: send at most {MAX_PIXELS} pixels") from error
    except Exception as error:  # decoders fail on broken bytes in any way
        raise InvalidRequest(f"{name} is broken or cut off ({_reason(error)}): send the whole file") from error


def _decode(name: str, encoded: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        _check_size(name, image.width, image.height)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != _CAMERA_FORMAT:
            raise InvalidRequest(f"{name} is an animation of {frames} frames: send a single image")
        rotated = ImageOps.exif_transpose(image)
        # Pillow would cut 16-bit gray off at 255, which leaves white.
        eight_bits = _from_16_bits(rotated) if rotated.mode.startswith("I") else rotated
        return eight_bits.convert(mode)


def _from_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"{name} is {width} x {height} pixels: send at most {MAX_PIXELS} pixels, for example 4096 x 4096"
        )


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__
