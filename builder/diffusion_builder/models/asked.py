"""What a request asks for: its inputs, checked, one value for each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .plan import ConditionError

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = NDArray[Any]
DEFAULT_SEED = 0


@dataclass(frozen=True)
class Range:
    """Numbers that are served.

    Args:
        low: smallest one.
        high: largest one.
        open: whether the smallest one itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def check(self, name: str, value: float, default: float) -> float:
        """Return the value when it is served.

        Raises:
            ConditionError: not finite or out of range.
        """
        inside = self.low < value if self.open else self.low <= value
        if math.isfinite(value) and inside and value <= self.high:
            return value
        if math.isinf(self.low):
            raise ConditionError(f"{name} {value} is not a finite number: send {default} or the like")
        raise ConditionError(f"{name} {value} is not served: send {'above' if self.open else 'from'} {self.low:g} "
                             f"to {self.high:g}")  # fmt: skip


FINITE = Range()
UNIT = Range(0.0, 1.0)
STRENGTH = Range(0.0, 1.0, open=True)


@dataclass(frozen=True)
class Asked:
    """The inputs of a request of B samples; those that were left out are missing.

    Args:
        batch: samples B.
        inputs: name to array [B, ...].
    """

    batch: int
    inputs: Mapping[str, Array]

    @classmethod
    def of(cls, inputs: Mapping[str, Array]) -> Asked:
        """Count the samples.

        Raises:
            ConditionError: there is nothing that says how many.
        """
        for name in ("input_ids", "prompt_embeddings"):
            if name in inputs:
                if len(inputs[name]) == 0:
                    raise ConditionError("prompt is empty: send at least one")
                return cls(len(inputs[name]), inputs)
        raise ConditionError("prompt is missing: send BYTES of shape [B, 1] with at least one prompt")

    def numbers(self, name: str, default: float, allowed: Range) -> list[float]:
        """A number for each sample.

        Single precision is read as the decimal number that its sender meant: 0.7 and not 0.69999999, which would be
        another number of steps.

        Raises:
            ConditionError: a value is not served, or there are too few or too many.
        """
        values = self._values(name)
        if values is None:
            return [default] * self.batch
        return [allowed.check(name, float(str(value)), default) for value in values]

    def seeds(self) -> list[int]:
        """A seed for each sample.

        Raises:
            ConditionError: there are too few or too many.
        """
        values = self._values("seed")
        return [DEFAULT_SEED] * self.batch if values is None else [int(value) for value in values]

    def names(self, name: str, default: str) -> list[str]:
        """A text for each sample.

        Raises:
            ConditionError: there are too few or too many.
        """
        values = self._values(name)
        if values is None:
            return [default] * self.batch
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]

    def size(self, name: str) -> int | None:
        """The one size of all samples.

        Raises:
            ConditionError: they differ.
        """
        values = self._values(name)
        if values is None:
            return None
        sizes = {int(value) for value in values}
        if len(sizes) != 1:
            raise ConditionError(f"{name} differs within one request ({sorted(sizes)}): send one request per size")
        return sizes.pop()

    def tensor(self, name: str) -> Array | None:
        """A tensor [B, ...] of finite numbers.

        Raises:
            ConditionError: it has another batch, or a number is not finite.
        """
        array = self.inputs.get(name)
        if array is None:
            return None
        self._count(name, array)
        if not np.isfinite(array).all():
            raise ConditionError(f"{name} has numbers that are not finite")
        return array

    def _values(self, name: str) -> Array | None:
        array = self.inputs.get(name)
        if array is None:
            return None
        values = array.reshape(-1)
        self._count(name, values)
        return values

    def _count(self, name: str, values: Array) -> None:
        if len(values) != self.batch:
            raise ConditionError(f"{name} has {len(values)} values for {self.batch} samples: send one each")
