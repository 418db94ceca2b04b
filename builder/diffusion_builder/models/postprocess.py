"""Postprocessing of an image, after the model.

In this order:

1. the colors are matched to the input image's around the mask,
2. contrast,
3. unsharp mask,
4. resizing to the requested size,
5. the input image's pixels outside `mask` (paste back) and inside `blend_mask`.

The input image comes last and at the final size: its pixels are neither sharpened nor resized from fewer.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from . import python_models, tensors
from .colors import match_colors
from .errors import InvalidRequest
from .images import GRAY, RGB, read_images
from .postprocess_numbers import DEFAULT_QUALITY, PostprocessNumbers, read_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .request_inputs import RequestInputs

_FLAGGED = 0.5
_SHARPEN_RADIUS = 2.0
# Of zlib's nine: a quarter of the time of the usual sixth, for files that are a sixth larger.
_PNG_LEVEL = 1


@dataclass(frozen=True)
class PostprocessOptions(PostprocessNumbers):
    """Postprocessing options of one sample.

    Args:
        original: the input image, mode RGB.
        mask: mode L, 255 where it was repainted.
        blend_mask: mode L, 255 where the input image's pixels are retained.
        is_flagged: the safety checker's verdict; the image is black.
    """

    original: Image.Image | None = None
    mask: Image.Image | None = None
    blend_mask: Image.Image | None = None
    is_flagged: bool = False


def read_options(inputs: RequestInputs) -> list[PostprocessOptions]:
    """Postprocessing options of a request, one for each sample.

    Raises:
        InvalidRequest: a value is out of range, or an input that it needs is missing.
    """
    none = [None] * inputs.batch
    numbers = read_numbers(inputs)
    blend_masks = read_images(inputs, python_models.BLEND_MASK, GRAY) or none
    # Decoding takes long, and the preprocessor has rejected what is not an image.
    needs_original = any(one.paste_back or one.color_match for one in numbers) or any(blend_masks)
    originals, masks = (
        (read_images(inputs, image_input, mode) if needs_original else None) or none
        for image_input, mode in ((python_models.INPUT_IMAGE, RGB), (python_models.MASK, GRAY))
    )
    flags = are_flagged(inputs)
    options = [
        PostprocessOptions(originals[i], masks[i], blend_masks[i], flags[i], **vars(one))
        for i, one in enumerate(numbers)
    ]
    for option in options:
        _check(option)
    return options


def postprocess(image: Image.Image, options: PostprocessOptions) -> Image.Image:
    """Postprocess one sample.

    Args:
        image: of the model, mode RGB.
        options: of the sample.
    """
    size = options.size(*image.size)
    if options.is_flagged:
        return Image.new(RGB, size)
    if options.color_match > 0 and options.original is not None:
        original = _resize(options.original, image.size)
        image = match_colors(image, original, _changed_region(options, image.size), options.color_match)
    # Pillow's enhancements round: a factor that changes nothing must not touch a bit.
    if options.contrast != 1:
        image = ImageEnhance.Contrast(image).enhance(options.contrast)
    if options.sharpen > 0:
        image = image.filter(ImageFilter.UnsharpMask(_SHARPEN_RADIUS, round(100 * options.sharpen), threshold=0))
    return _paste_original(_resize(image, size), options)


def to_pixels(decoded: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map [B, 3, H, W] in [-1, 1] to uint8 [B, H, W, 3] as diffusers' VaeImageProcessor does."""
    # In place: of 512 x 512 pixels each temporary array would cost a millisecond.
    levels = decoded * np.float32(0.5)
    levels += np.float32(0.5)
    np.clip(levels, 0.0, 1.0, out=levels)
    levels *= np.float32(255.0)
    np.rint(levels, out=levels)
    batch, channels, height, width = levels.shape
    pixels: NDArray[np.uint8] = np.empty((batch, height, width, channels), np.uint8)
    np.copyto(pixels, levels.transpose(0, 2, 3, 1), casting="unsafe")
    return pixels


def encode(image: Image.Image, file_format: str = "PNG", quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode one image.

    Args:
        image: mode RGB.
        file_format: one of `postprocess_numbers.FORMATS`.
        quality: 1 to 100, of JPEG and WebP; PNG keeps every bit anyway.
    """
    buffer = io.BytesIO()
    options = {"compress_level": _PNG_LEVEL} if file_format == "PNG" else {"quality": quality}
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def _paste_original(image: Image.Image, options: PostprocessOptions) -> Image.Image:
    """Take the input image's pixels where they are retained."""
    weight = Image.new(GRAY, image.size, 255)
    if options.paste_back and options.mask is not None:
        weight = _feather(options.mask, image.size, options.feather)
    if options.blend_mask is not None:
        retained = _feather(options.blend_mask, image.size, options.feather)
        weight = ImageChops.multiply(weight, ImageOps.invert(retained))
    if options.original is None or weight.getextrema() == (255, 255):
        return image
    return Image.composite(image, _resize(options.original, image.size), weight)


def _changed_region(options: PostprocessOptions, size: tuple[int, int]) -> Image.Image | None:
    """Where the image differs from the input image, for the color match."""
    if options.mask is not None:
        return _feather(options.mask, size, 0)
    return None if options.blend_mask is None else ImageOps.invert(_feather(options.blend_mask, size, 0))


def _feather(mask: Image.Image, size: tuple[int, int], radius: float) -> Image.Image:
    # Lanczos would ring: faint traces of the new image far into what is retained.
    resized = mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)
    return resized.filter(ImageFilter.GaussianBlur(radius)) if radius > 0 else resized


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _check(options: PostprocessOptions) -> None:
    needs_original = {
        python_models.PASTE_BACK.name: options.paste_back,
        python_models.BLEND_MASK.pixels.name: options.blend_mask is not None,
        python_models.COLOR_MATCH.name: options.color_match > 0,
    }
    for name, is_used in needs_original.items():
        if is_used and options.original is None:
            raise InvalidRequest(f"{name} needs the input image: send input_image or input_image_file as well")
    if options.paste_back and options.mask is None:
        raise InvalidRequest("paste_back needs to know where the image was repainted: send mask or mask_file as well")


def are_flagged(inputs: RequestInputs) -> list[bool]:
    """Whether each sample's image is withheld; a verdict that is not a number counts as flagged."""
    values = inputs.read(tensors.SAFETY_FLAG.name)
    return (
        [False] * inputs.batch if values is None else [not value <= _FLAGGED for value in values.reshape(-1).tolist()]
    )
