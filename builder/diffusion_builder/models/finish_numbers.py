"""How a picture is to be finished, but for the pictures that it is mixed with: read and checked without any picture.

The conditioner refuses with it before the first step what the postprocessor could not do after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .inputs import FORMATS, InputError, Number, Read, flags, one_each

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_SIDE = 4096
DEFAULT_QUALITY = 90
# By the field of `FinishNumbers` that each becomes.
_NUMBERS = {
    "feather": Number("blend_feather", 0.0, 0.0, 256.0, "radius in pixels, 0 leaves the masks as they are"),
    "color_match": Number("color_match", 0.0, 0.0, 1.0, "0 changes nothing, 1 matches the original in full"),
    "contrast": Number("contrast", 1.0, 0.0, 4.0, "1 changes nothing, 0 is grey"),
    "sharpen": Number("sharpen", 0.0, 0.0, 5.0, "0 changes nothing, 1 adds the edges once"),
}
_QUALITY = Number("quality", DEFAULT_QUALITY, 1, 100, "of JPEG and WEBP")
_SIDES = tuple(Number(name, 0, 16, _MAX_SIDE, "pixels") for name in ("upscale_height", "upscale_width"))


@dataclass(frozen=True, kw_only=True)
class FinishNumbers:
    """What one sample asks for.

    Args:
        paste_back: keep the original outside `mask`.
        feather: radius in pixels by which masks are softened.
        color_match: 0 to 1.
        contrast: 1 changes nothing.
        sharpen: 0 changes nothing.
        height: in pixels; 0 keeps it.
        width: in pixels; 0 keeps it.
        file_format: of the encoded picture.
        quality: of the encoded picture.
    """

    paste_back: bool = False
    feather: float = 0.0
    color_match: float = 0.0
    contrast: float = 1.0
    sharpen: float = 0.0
    height: int = 0
    width: int = 0
    file_format: str = FORMATS[0]
    quality: int = DEFAULT_QUALITY

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture that has these; one that was left out follows from the other by proportion.

        Raises:
            InputError: the one that follows is too large or too small.
        """
        wide = self.width or (round(width * self.height / height) if self.height else width)
        high = self.height or (round(height * self.width / width) if self.width else height)
        if (self.width or self.height) and not 1 <= min(wide, high) <= max(wide, high) <= _MAX_SIDE:
            raise InputError(
                f"upscaling gives {wide} x {high} pixels: send upscale_height and upscale_width of at most {_MAX_SIDE}"
            )
        return wide, high


def finish_numbers(read: Read, batch: int) -> list[FinishNumbers]:
    """What a request asks for, one for each sample.

    Raises:
        InputError: a value is out of range, or there are not as many as samples.
    """
    numbers = {field: number.read(read, batch) for field, number in _NUMBERS.items()}
    height, width = (_side(number, read, batch) for number in _SIDES)
    paste, formats, quality = flags(read, "paste_back", batch), _formats(read, batch), _QUALITY.read(read, batch)
    return [
        FinishNumbers(
            **{name: values[i] for name, values in numbers.items()},
            paste_back=paste[i],
            height=height[i],
            width=width[i],
            file_format=formats[i],
            quality=int(quality[i]),
        )
        for i in range(batch)
    ]


def check(read: Read, batch: int, width: int, height: int) -> None:
    """Refuse what could not be done with pictures of this size.

    Raises:
        InputError: as `finish_numbers`, or a side that follows is too large or too small.
    """
    for finish in finish_numbers(read, batch):
        finish.size(width, height)


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
