"""Optional inputs of a request: read, counted and checked the same way everywhere, without Triton."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# A tensor of the request by its name, batch first; None when it was left out.
Read = Callable[[str], NDArray[Any] | None]
# Of pictures, read and written.
FORMATS = ("PNG", "JPEG", "WEBP")
# What every request has or brings about: it tells the batch.
_CARRIERS = ("input_ids", "prompt_embeddings", "guidance")


class InputError(Exception):
    """An input cannot be used; the message says what was wrong and what to send."""


def batch_of(read: Read) -> int:
    """How many samples a request has.

    Raises:
        InputError: nothing says so.
    """
    for name in _CARRIERS:
        carrier = read(name)
        if carrier is not None and len(carrier):
            return len(carrier)
    raise InputError("prompt is empty: send BYTES of shape [B, 1] with at least one prompt")


def one_each(name: str, count: int, batch: int) -> None:
    """Check that there is one value for each sample.

    Raises:
        InputError: there are more or fewer.
    """
    if count != batch:
        raise InputError(f"{name} has {count} values for a batch of {batch}: send one each")


def flags(read: Read, name: str, batch: int) -> list[bool]:
    """Yes or no for each sample; no when left out."""
    values = read(name)
    if values is None:
        return [False] * batch
    one_each(name, values.size, batch)
    return [bool(value) for value in values.reshape(-1)]


@dataclass(frozen=True)
class Number:
    """A number that a request may send for each sample.

    Args:
        name: the input.
        default: what holds when it is left out.
        low: smallest value.
        high: largest value.
        hint: what is said about it when it is refused, for example its unit.
    """

    name: str
    default: float
    low: float
    high: float
    hint: str

    def read(self, read: Read, batch: int) -> list[float]:
        """One value for each sample.

        Raises:
            InputError: a value is out of range or not finite, or there are not as many as samples.
        """
        values = read(self.name)
        if values is None:
            return [self.default] * batch
        one_each(self.name, values.size, batch)
        return [self._check(value) for value in values.reshape(-1).tolist()]

    def _check(self, value: float) -> float:
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise InputError(f"{self.name} {value:g} is not served: send {self.low:g} to {self.high:g} ({self.hint})")
        return value
