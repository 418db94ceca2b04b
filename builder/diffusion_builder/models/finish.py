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

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from .colors import matched
from .finish_numbers import FinishNumbers, finish_numbers
from .inputs import InputError, Read
from .pictures import GRAY, RGB, pictures

_FLAGGED = 0.5
_SHARPEN_RADIUS = 2.0


@dataclass(frozen=True)
class Finish(FinishNumbers):
    """What one sample asks for.

    Args:
        original: the picture that the request sent, mode RGB.
        mask: mode L, 255 where it was repainted.
        keep: `blend_mask`, mode L, 255 where the original's pixels are kept.
        flagged: the safety checker's verdict; the picture is black.
    """

    original: Image.Image | None = None
    mask: Image.Image | None = None
    keep: Image.Image | None = None
    flagged: bool = False


def asked(read: Read, batch: int) -> list[Finish]:
    """What a request asks for, one for each sample.

    Raises:
        InputError: a value is out of range, or an input that it needs is missing.
    """
    none = [None] * batch
    numbers = finish_numbers(read, batch)
    keep = pictures(read, "blend_mask", batch, GRAY) or none
    # Decoding takes long, and the preprocessor has refused what is no picture.
    used = any(one.paste_back or one.color_match for one in numbers) or any(keep)
    originals, mask = (
        (pictures(read, name, batch, mode) if used else None) or none
        for name, mode in (("input_image", RGB), ("mask", GRAY))
    )
    black = _flagged(read, batch)
    finishes = [Finish(originals[i], mask[i], keep[i], black[i], **vars(one)) for i, one in enumerate(numbers)]
    for finish in finishes:
        _check(finish)
    return finishes


def finished(new: Image.Image, finish: Finish) -> Image.Image:
    """Do what one sample asks for.

    Args:
        new: what the model made, mode RGB.
        finish: what is asked for.
    """
    size = finish.size(*new.size)
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


def _check(finish: Finish) -> None:
    needs = {"paste_back": finish.paste_back, "blend_mask": finish.keep is not None, "color_match": finish.color_match}
    for name, used in needs.items():
        if used and finish.original is None:
            raise InputError(f"{name} needs the original: send input_image or input_image_file as well")
    if finish.paste_back and finish.mask is None:
        raise InputError("paste_back needs to know where the picture is new: send mask or mask_file as well")


def _flagged(read: Read, batch: int) -> list[bool]:
    """A verdict that is not a number counts as flagged."""
    values = read("flagged")
    return [False] * batch if values is None else [not value <= _FLAGGED for value in values.reshape(-1).tolist()]
