"""The normal numbers of torch's CPU generator, without torch.

`torch.randn(shape, generator=torch.Generator().manual_seed(seed))` for float32 draws 24-bit uniforms from
MT19937 and transforms blocks of 16 by Box-Muller (aten/src/ATen/native/cpu/DistributionTemplates.h,
`normal_fill`). When the count is not a multiple of 16, the last 16 numbers are drawn again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence


Floats: TypeAlias = NDArray[np.float32]
_BLOCK = 16
_UNIFORM_BITS = 24
# torch seeds MT19937 with the low 32 bits of its 64-bit seed.
_SEED_MASK = 0xFFFFFFFF


class Generator:
    """Draws one array after the other, as torch's generator does.

    Args:
        seed: any 64-bit integer; negative ones as `manual_seed` takes them (modulo 2**64).
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(seed & _SEED_MASK)

    def normal(self, shape: Sequence[int]) -> Floats:
        """Draw what `torch.randn` draws next.

        Args:
            shape: at least 16 elements, below that torch uses another algorithm.

        Returns:
            float32 array of this shape.

        Raises:
            ValueError: fewer than 16 elements.
        """
        count = math.prod(shape)
        if count < _BLOCK:
            raise ValueError(f"{count} elements: this algorithm starts at {_BLOCK}")
        whole = count - count % _BLOCK
        draws = self._uniform(count)
        values = np.empty(count, np.float32)
        values[:whole] = _box_muller(draws[:whole])
        if whole < count:
            values[-_BLOCK:] = _box_muller(self._uniform(_BLOCK))
        return values.reshape(tuple(shape))

    def _uniform(self, count: int) -> Floats:
        words = self._words.randint(0, 1 << 32, size=count, dtype=np.uint32)
        fractions: Floats = (words & ((1 << _UNIFORM_BITS) - 1)).astype(np.float32) / np.float32(1 << _UNIFORM_BITS)
        return fractions


def _box_muller(uniforms: Floats) -> Floats:
    """Single precision throughout: the rounding of the angle shows in the last digits of torch's numbers."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - blocks[:, 0]))
    angle = np.float32(2.0 * math.pi) * blocks[:, 1]
    normal: Floats = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    return normal
