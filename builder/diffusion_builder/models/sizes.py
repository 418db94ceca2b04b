"""Which height and width a request gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .inputs import InputError, Read, one_each

if TYPE_CHECKING:
    from collections.abc import Sequence

_PIXEL_MULTIPLE = 8


@dataclass(frozen=True)
class Side:
    """Smallest, default and largest height or width in pixels."""

    min: int
    opt: int
    max: int

    def fits(self, value: int) -> bool:
        """Whether a picture of this height or width can be made."""
        return self.min <= value <= self.max and value % _PIXEL_MULTIPLE == 0

    @property
    def served(self) -> str:
        """What to send, in words."""
        return f"a multiple of {_PIXEL_MULTIPLE} from {self.min} to {self.max} pixels"


def chosen(name: str, read: Read, side: Side, pictures: Sequence[int] | None, batch: int) -> int:
    """Height or width of a request's pictures.

    Args:
        name: `height` or `width`.
        read: the request.
        side: what is served.
        pictures: the same side of each sample's input picture, None where the task has none.
        batch: samples of the request.

    Raises:
        InputError: not served, or not the same for all samples.
    """
    values = read(name)
    if values is not None:
        one_each(name, values.size, batch)
        return _asked(name, values.reshape(-1).tolist(), side)
    return side.opt if pictures is None else _from_pictures(name, pictures, side)


def _asked(name: str, values: Sequence[int], side: Side) -> int:
    if len(set(values)) != 1:
        raise InputError(f"{name} differs within one request ({list(values)}): send one request per size")
    if not side.fits(values[0]):
        raise InputError(f"{name} {values[0]} is not served: send {side.served}")
    return values[0]


def _from_pictures(name: str, values: Sequence[int], side: Side) -> int:
    if len(set(values)) != 1:
        raise InputError(f"the {name} of input_image differs within one request ({list(values)}): send {name} as well")
    if not side.fits(values[0]):
        raise InputError(
            f"input_image has the {name} {values[0]}, which is not served: send {name} as well, {side.served}, "
            "and the picture is resized to it"
        )
    return values[0]
