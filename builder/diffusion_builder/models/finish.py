"""What is done to a picture after the model has made it.

In this order:

1. the colours are matched to the original's around the mask,
2. contrast,
3. unsharp mask,
4. resizing to the requested size,
5. the original's pixels outside `mask` (paste back) and inside `blend_mask`.

The original comes last and at the final size: what is kept of it is neither sharpened nor made from fewer pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from .colors import matched
from .inputs import InputError, Number, Read, flags, one_each
from .pictures import FORMATS, GRAY, RGB, pictures
from .pixels import DEFAULT_QUALITY

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SIDE = 4096
_COLOR_MATCH = Number("color_match", 0.0, 0.0, 1.0, "0 changes nothing, 1 matches the original in full")
_CONTRAST = Number("contrast", 1.0, 0.0, 4.0, "1 changes nothing, 0 is grey")
_SHARPEN = Number("sharpen", 0.0, 0.0, 5.0, "0 changes nothing, 1 adds the edges once")
_FEATHER = Number("blend_feather", 0.0, 0.0, 256.0, "radius in pixels, 0 leaves the masks as they are")
_QUALITY = Number("quality", DEFAULT_QUALITY, 1, 100, "of JPEG and WEBP")
_SIDES = tuple(Number(name, 0, 16, MAX_SIDE, "pixels") for name in ("upscale_height", "upscale_width"))
_FLAGGED = 0.5
_SHARPEN_RADIUS = 2.0


@dataclass(frozen=True)
class Finish:
    """What one sample asks for.

    Args:
        original: the picture that the request sent, mode RGB.
        mask: mode L, 255 where it was repainted.
        keep: `blend_mask`, mode L, 255 where the original's pixels are kept.
        paste_back: keep the original outside `mask`.
        feather: radius in pixels by which both masks are softened.
        color_match: 0 to 1.
        contrast: 1 changes nothing.
        sharpen: 0 changes nothing.
        height: in pixels; 0 keeps it.
        width: in pixels; 0 keeps it.
        file_format: of the encoded picture.
        quality: of the encoded picture.
        flagged: the safety checker's verdict; the picture is black.
    """

    original: Image.Image | None = None
    mask: Image.Image | None = None
    keep: Image.Image | None = None
    paste_back: bool = False
    feather: float = 0.0
    color_match: float = 0.0
    contrast: float = 1.0
    sharpen: float = 0.0
    height: int = 0
    width: int = 0
    file_format: str = FORMATS[0]
    quality: int = DEFAULT_QUALITY
    flagged: bool = False


def asked(read: Read, batch: int) -> list[Finish]:
    """What a request asks for, one for each sample.

    Raises:
        InputError: a value is out of range, or an input that it needs is missing.
    """
    none = [None] * batch
    numbers = [number.read(read, batch) for number in (_FEATHER, _COLOR_MATCH, _CONTRAST, _SHARPEN, _QUALITY)]
    heights, widths = (_side(number, read, batch) for number in _SIDES)
    paste, formats, black = flags(read, "paste_back", batch), _formats(read, batch), _flagged(read, batch)
    feather, color, contrast, sharpen, quality = numbers
    keep = pictures(read, "blend_mask", batch, GRAY) or none
    # Decoding takes long, and the preprocessor has refused what is no picture.
    used = any(paste) or any(color) or any(keep)
    originals, mask = (
        (pictures(read, name, batch, mode) if used else None) or none
        for name, mode in (("input_image", RGB), ("mask", GRAY))
    )
    finishes = [
        Finish(
            originals[i], mask[i], keep[i], paste[i], feather[i], color[i], contrast[i], sharpen[i],
            heights[i], widths[i], formats[i], int(quality[i]), black[i],
        )
        for i in range(batch)
    ]  # fmt: skip
    for finish in finishes:
        _check(finish)
    return finishes


def finished(new: Image.Image, finish: Finish) -> Image.Image:
    """Do what one sample asks for.

    Args:
        new: what the model made, mode RGB.
        finish: what is asked for.
    """
    size = _size(new, finish)
    if finish.flagged:
        return Image.new(RGB, size)
    if finish.color_match > 0 and finish.original is not None:
        original = _fitted(finish.original, new.size)
        new = matched(new, original, _repainted(finish, new.size), finish.color_match)
    # Pillow's enhancements round: a factor that changes nothing must not touch a bit.
    if finish.contrast != 1:
        new = ImageEnhance.Contrast(new).enhance(finish.contrast)
    if finish.sharpen > 0:
        new = new.filter(ImageFilter.UnsharpMask(_SHARPEN_RADIUS, round(100 * finish.sharpen), threshold=0))
    return _blended(_fitted(new, size), finish)


def _blended(new: Image.Image, finish: Finish) -> Image.Image:
    """The original's pixels where they are kept."""
    weight = Image.new(GRAY, new.size, 255)
    if finish.paste_back and finish.mask is not None:
        weight = _softened(finish.mask, new.size, finish.feather)
    if finish.keep is not None:
        kept = _softened(finish.keep, new.size, finish.feather)
        weight = ImageChops.multiply(weight, ImageOps.invert(kept))
    if finish.original is None or weight.getextrema() == (255, 255):
        return new
    return Image.composite(new, _fitted(finish.original, new.size), weight)


def _repainted(finish: Finish, size: tuple[int, int]) -> Image.Image | None:
    """Where the picture is new, for the colour match."""
    if finish.mask is not None:
        return _softened(finish.mask, size, 0)
    return None if finish.keep is None else ImageOps.invert(_softened(finish.keep, size, 0))


def _softened(mask: Image.Image, size: tuple[int, int], feather: float) -> Image.Image:
    # Lanczos would ring: faint traces of the new picture far into what is kept.
    result = mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)
    return result.filter(ImageFilter.GaussianBlur(feather)) if feather > 0 else result


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _size(new: Image.Image, finish: Finish) -> tuple[int, int]:
    """Width and height; one that was left out follows from the other by the proportions.

    Raises:
        InputError: the one that follows is too large or too small.
    """
    width = finish.width or (round(new.width * finish.height / new.height) if finish.height else new.width)
    height = finish.height or (round(new.height * finish.width / new.width) if finish.width else new.height)
    if (finish.width or finish.height) and not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise InputError(
            f"upscaling gives {width} x {height} pixels: send upscale_height and upscale_width of at most {MAX_SIDE}"
        )
    return width, height


def _check(finish: Finish) -> None:
    needs = {"paste_back": finish.paste_back, "blend_mask": finish.keep is not None, "color_match": finish.color_match}
    for name, used in needs.items():
        if used and finish.original is None:
            raise InputError(f"{name} needs the original: send input_image or input_image_file as well")
    if finish.paste_back and finish.mask is None:
        raise InputError("paste_back needs to know where the picture is new: send mask or mask_file as well")


def _side(number: Number, read: Read, batch: int) -> list[int]:
    values = [int(value) for value in number.read(read, batch)]
    if len(set(values)) > 1:
        raise InputError(f"{number.name} differs within one request ({values}): send one request per size")
    return values


def _formats(read: Read, batch: int) -> Sequence[str]:
    values = read("output_format")
    if values is None:
        return [FORMATS[0]] * batch
    one_each("output_format", values.size, batch)
    names = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.flat]
    for name in names:
        if name.upper() not in FORMATS:
            raise InputError(f"output_format {name[:20]!r} is not served: send {', '.join(FORMATS)}")
    return [name.upper() for name in names]


def _flagged(read: Read, batch: int) -> list[bool]:
    """A verdict that is not a number counts as flagged."""
    values = read("flagged")
    return [False] * batch if values is None else [not value <= _FLAGGED for value in values.reshape(-1).tolist()]
