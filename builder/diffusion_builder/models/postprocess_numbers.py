"""Postprocessing options of a request, but for the images that it is mixed with.

The conditioner reads them too, so that it rejects before the first step what the postprocessor could not do after the
last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import python_models
from .errors import InvalidRequest
from .request_inputs import NumberInput, common_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .request_inputs import RequestInputs

# Of images, read and written.
FORMATS = ("PNG", "JPEG", "WEBP")
DEFAULT_QUALITY = 90
_MAX_SIDE = 4096
# By the field of `PostprocessNumbers` that each becomes.
_NUMBERS = {
    "feather": NumberInput(
        python_models.BLEND_FEATHER, 0.0, 0.0, 256.0, hint="radius in pixels, 0 leaves the masks as they are"
    ),
    "color_match": NumberInput(
        python_models.COLOR_MATCH, 0.0, 0.0, 1.0, hint="0 changes nothing, 1 matches the input image in full"
    ),
    "contrast": NumberInput(python_models.CONTRAST, 1.0, 0.0, 4.0, hint="1 changes nothing, 0 is gray"),
    "sharpen": NumberInput(python_models.SHARPEN, 0.0, 0.0, 5.0, hint="0 changes nothing, 1 adds the edges once"),
}
_QUALITY = NumberInput(python_models.QUALITY, DEFAULT_QUALITY, 1, 100, hint="of JPEG and WEBP")
_SIDES = tuple(
    NumberInput(tensor, 0, 16, _MAX_SIDE, hint="pixels")
    for tensor in (python_models.UPSCALE_HEIGHT, python_models.UPSCALE_WIDTH)
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PostprocessNumbers:
    """Postprocessing options of one sample.

    Args:
        paste_back: keep the input image outside `mask`.
        feather: radius in pixels by which masks are softened.
        color_match: 0 to 1.
        contrast: 1 changes nothing.
        sharpen: 0 changes nothing.
        height: in pixels; 0 keeps it.
        width: in pixels; 0 keeps it.
        file_format: of the encoded image.
        quality: of the encoded image.
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
        """Width and height of the postprocessed image; one that was left out follows from the other by proportion.

        Raises:
            InvalidRequest: the one that follows is too large or too small.
        """
        wide = self.width or (round(width * self.height / height) if self.height else width)
        high = self.height or (round(height * self.width / width) if self.width else height)
        if (self.width or self.height) and not 1 <= min(wide, high) <= max(wide, high) <= _MAX_SIDE:
            raise InvalidRequest(
                f"upscaling gives {wide} x {high} pixels: send upscale_height and upscale_width of at most {_MAX_SIDE}"
            )
        return wide, high


def read_numbers(inputs: RequestInputs) -> list[PostprocessNumbers]:
    """Postprocessing options of a request, one for each sample.

    Raises:
        InvalidRequest: a value is out of range, or there are not as many as samples.
    """
    numbers = {field: inputs.numbers(number) for field, number in _NUMBERS.items()}
    height, width = (_sides(inputs, number) for number in _SIDES)
    paste_back, formats = inputs.scalars(python_models.PASTE_BACK, default=False), _formats(inputs)
    quality = inputs.numbers(_QUALITY)
    return [
        PostprocessNumbers(
            **{name: values[i] for name, values in numbers.items()},
            paste_back=paste_back[i],
            height=height[i],
            width=width[i],
            file_format=formats[i],
            quality=int(quality[i]),
        )
        for i in range(inputs.batch)
    ]


def check(inputs: RequestInputs, width: int, height: int) -> None:
    """Reject what could not be done with images of this size.

    Raises:
        InvalidRequest: as `read_numbers`, or a side that follows is too large or too small.
    """
    for numbers in read_numbers(inputs):
        numbers.size(width, height)


def _sides(inputs: RequestInputs, number: NumberInput) -> list[int]:
    sides = [int(side) for side in inputs.numbers(number)]
    common_value(number.tensor.name, sides)
    return sides


def _formats(inputs: RequestInputs) -> Sequence[str]:
    names = inputs.texts(python_models.OUTPUT_FORMAT, FORMATS[0])
    for name in names:
        if name.upper() not in FORMATS:
            raise InvalidRequest(f"output_format {name[:20]!r} is not supported: send {', '.join(FORMATS)}")
    return [name.upper() for name in names]
