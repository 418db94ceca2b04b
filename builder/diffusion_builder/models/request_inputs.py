"""The inputs of a request: read, counted and checked the same way in every Python model, without Triton."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest
from .python_models import BATCH_TENSORS, HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .tensors import Tensor

Array = NDArray[Any]
# A tensor of the request by its name, batch first; None when it was left out.
ReadTensor = Callable[[str], Array | None]
_PIXEL_MULTIPLE = 8
_Scalar = TypeVar("_Scalar", int, bool)


@dataclass(frozen=True)
class NumberInput:
    """A number that a request may send for each sample.

    Args:
        tensor: the input.
        default: value where the input is left out.
        low: smallest value.
        high: largest value.
        above_low: whether the smallest value itself is excluded.
        hint: unit or meaning, for the error message.
    """

    tensor: Tensor
    default: float
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    hint: str = ""

    def check(self, value: float) -> float:
        """Return a value that is supported.

        Raises:
            InvalidRequest: it is not finite or out of range.
        """
        is_inside = self.low < value if self.above_low else self.low <= value
        if math.isfinite(value) and is_inside and value <= self.high:
            return value
        name = self.tensor.name
        if math.isinf(self.low):
            raise InvalidRequest(f"{name} {value:g} is not a finite number: send {self.default:g} or the like")
        hint = f" ({self.hint})" if self.hint else ""
        raise InvalidRequest(
            f"{name} {value:g} is not supported: send {'above ' if self.above_low else ''}{self.low:g} to "
            f"{self.high:g}{hint}"
        )


@dataclass(frozen=True)
class RequestInputs:
    """The inputs of a request of B samples; those that were left out have their defaults.

    Args:
        read: a tensor by its name.
        batch: samples B.
    """

    read: ReadTensor
    batch: int

    @classmethod
    def of(cls, read: ReadTensor) -> RequestInputs:
        """Count the samples of a request.

        Raises:
            InvalidRequest: it has none.
        """
        for tensor in BATCH_TENSORS:
            values = read(tensor.name)
            if values is not None and len(values):
                return cls(read, len(values))
        raise InvalidRequest("prompt is missing or empty: send BYTES of shape [B, 1] with at least one prompt")

    def values(self, tensor: Tensor) -> Array | None:
        """One value for each sample, or None when left out.

        Raises:
            InvalidRequest: there are more or fewer.
        """
        array = self.read(tensor.name)
        if array is None:
            return None
        self.require_one_per_sample(tensor.name, array.size)
        return array.reshape(-1)

    def numbers(self, number: NumberInput) -> list[float]:
        """A number for each sample.

        Single precision is read as the decimal number that its sender meant: 0.7 and not 0.69999999, which would be
        another number of steps.

        Raises:
            InvalidRequest: a value is not supported, or there are more or fewer than samples.
        """
        values = self.values(number.tensor)
        if values is None:
            return [number.default] * self.batch
        return [number.check(float(str(value))) for value in values]

    def scalars(self, tensor: Tensor, default: _Scalar) -> list[_Scalar]:
        """An integer or a boolean, as the default is, for each sample.

        Raises:
            InvalidRequest: there are more or fewer than samples.
        """
        values = self.values(tensor)
        return [default] * self.batch if values is None else [type(default)(value) for value in values]

    def texts(self, tensor: Tensor, default: str) -> list[str]:
        """A text for each sample.

        Raises:
            InvalidRequest: one is not UTF-8, or there are more or fewer than samples.
        """
        values = self.values(tensor)
        return [default] * self.batch if values is None else decode_texts(tensor.name, values)

    def optional_texts(self, tensor: Tensor) -> list[str] | None:
        """A text for each sample, or None when left out.

        Raises:
            InvalidRequest: one is not UTF-8, or there are more or fewer than samples.
        """
        values = self.values(tensor)
        return None if values is None else decode_texts(tensor.name, values)

    def finite(self, tensor: Tensor) -> Array | None:
        """A tensor [B, ...] of finite numbers, or None when left out.

        Raises:
            InvalidRequest: it has another batch, or a number is not finite.
        """
        array = self.read(tensor.name)
        if array is None:
            return None
        self.require_one_per_sample(tensor.name, len(array))
        if not np.isfinite(array).all():
            raise InvalidRequest(f"{tensor.name} has numbers that are not finite: send finite ones")
        return array

    def require_one_per_sample(self, name: str, count: int) -> None:
        """Check a number of values.

        Raises:
            InvalidRequest: it is not the number of samples.
        """
        if count != self.batch:
            raise InvalidRequest(f"{name} has {count} values for a batch of {self.batch}: send one for each sample")


def decode_texts(name: str, values: Array) -> list[str]:
    """Decode a BYTES tensor.

    Raises:
        InvalidRequest: it is not UTF-8.
    """
    try:
        return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values.reshape(-1)]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name} is not UTF-8 ({error.reason} at byte {error.start}): encode it as UTF-8"
        ) from error


@dataclass(frozen=True)
class SizeRange:
    """Smallest, default and largest height or width in pixels."""

    min: int
    opt: int
    max: int

    def contains(self, side: int) -> bool:
        """Whether images of this height or width are supported."""
        return self.min <= side <= self.max and side % _PIXEL_MULTIPLE == 0

    @property
    def hint(self) -> str:
        """Supported sides, for messages."""
        return f"a multiple of {_PIXEL_MULTIPLE} from {self.min} to {self.max} pixels"


@dataclass(frozen=True)
class SupportedSizes:
    """Sizes of images in pixels.

    Args:
        height: supported heights.
        width: supported widths.
        buckets: the only heights and widths that go together; empty where all do.
    """

    height: SizeRange
    width: SizeRange
    buckets: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> SupportedSizes:
        """Read from what the builder has written for a model."""
        buckets = tuple((height, width) for height, width in body.get("buckets", ()))
        return cls(SizeRange(**body["height"]), SizeRange(**body["width"]), buckets)

    def of(
        self,
        inputs: RequestInputs,
        image_heights: Sequence[int] | None = None,
        image_widths: Sequence[int] | None = None,
    ) -> tuple[int, int]:
        """Height and width of the images of a request, in pixels.

        Args:
            inputs: the request.
            image_heights: of each sample's input image, None without input images.
            image_widths: the same.

        Raises:
            InvalidRequest: they are not supported, or not the same for all samples.
        """
        height = request_size(inputs, HEIGHT, self.height, image_heights)
        width = request_size(inputs, WIDTH, self.width, image_widths)
        if self.buckets and (height, width) not in self.buckets:
            listed = ", ".join(f"{rows} x {columns}" for rows, columns in self.buckets)
            raise InvalidRequest(
                f"height {height} and width {width} are not supported together: send height and width of one of "
                f"{listed} (height x width)"
            )
        return height, width


def request_size(
    inputs: RequestInputs, tensor: Tensor, sizes: SizeRange, image_sides: Sequence[int] | None = None
) -> int:
    """Height or width of the images of a request, in pixels.

    Args:
        inputs: the request.
        tensor: the input `height` or `width`.
        sizes: supported ones.
        image_sides: the same side of each sample's input image, None without input images.

    Raises:
        InvalidRequest: it is not supported, or not the same for all samples.
    """
    values = inputs.values(tensor)
    if values is not None:
        side = common_value(tensor.name, values.tolist())
        if not sizes.contains(side):
            raise InvalidRequest(f"{tensor.name} {side} is not supported: send {sizes.hint}")
        return side
    return sizes.opt if image_sides is None else _image_side(tensor.name, image_sides, sizes)


def common_value(name: str, values: Sequence[int]) -> int:
    """The one size of all samples.

    Raises:
        InvalidRequest: they differ.
    """
    if len(set(values)) != 1:
        raise InvalidRequest(f"{name} differs within one request ({list(values)}): send one request per size")
    return values[0]


def _image_side(name: str, sides: Sequence[int], sizes: SizeRange) -> int:
    if len(set(sides)) != 1:
        raise InvalidRequest(
            f"the {name} of input_image differs within one request ({list(sides)}): send {name} as well"
        )
    if not sizes.contains(sides[0]):
        raise InvalidRequest(
            f"input_image has the {name} {sides[0]}, which is not supported: send {name} as well, {sizes.hint}, "
            "and the image is resized to it"
        )
    return sides[0]
