"""Parts of a prompt with weights, which both syntaxes are read into."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .errors import InvalidRequest

# Nobody writes so many brackets around each other; a hostile prompt of them alone would take quadratic time.
_MAX_DEPTH = 32


class Fragment(NamedTuple):
    """A text, and by how much it counts."""

    text: str
    weight: float


class Break(NamedTuple):
    """The end of a window of the text encoder, whatever room is left in it."""


Part: TypeAlias = Fragment | Break


def check_depth(depth: int) -> None:
    """Limit brackets around each other.

    Raises:
        InvalidRequest: there are too many.
    """
    if depth > _MAX_DEPTH:
        raise InvalidRequest(f"prompt has more than {_MAX_DEPTH} brackets around each other: send fewer")
