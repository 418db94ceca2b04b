"""The arithmetic of what a file has for one layer.

LoRA (arXiv 2106.09685), LoHa (2108.06098) and LoKr (2309.14859) give a difference of weights from small factors; DoRA
(2402.09353) then rescales each row. Formulas and shapes are those of PEFT and LyCORIS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order in which they are named when one is missing.
_TOGETHER = (
    ("down", "up"),
    ("embedding_down", "embedding_up"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
)
# These change something else, and say nothing alone.
_DEPENDENT = frozenset({"magnitude", "dora_scale", "mid", "hada_t1", "hada_t2", "up_bias"})


@dataclass
class Update:
    """What a file has for one layer.

    Args:
        key: the name of one of its entries, for messages.
        module: the layer's name as the file has it.
        tensors: by factor, in float32.
        alpha: the file's own number for this layer.
    """

    key: str
    module: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    alpha: float | None = None

    def missing(self) -> str | None:
        """A factor without which the others mean nothing."""
        present = self.tensors.keys()
        for group in _TOGETHER:
            absent = [name for name in group if name not in present]
            if absent and len(absent) < len(group):
                return absent[0]
        kronecker = any(name.startswith("lokr_") for name in present)
        for side in ("lokr_w1", "lokr_w2") if kronecker else ():
            if side not in present and f"{side}_a" not in present:
                return side
        return None if present - _DEPENDENT else "down"

    def rank(self) -> int | None:
        """Length of the inner dimension; None where the factors have none."""
        for name in ("down", "embedding_down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
            if name in self.tensors:
                shape = self.tensors[name].shape
                return int(shape[0]) if shape else 0
        return None

    def difference(self, shape: torch.Size) -> torch.Tensor | None:
        """The unscaled difference of the weight, or None where only the bias changes.

        Raises:
            RuntimeError, IndexError: the factors do not fit each other.
        """
        parts = self.tensors
        if "down" in parts:
            return _low_rank(parts)
        if "embedding_down" in parts:
            return (parts["embedding_up"] @ parts["embedding_down"]).t()
        if "hada_w1_a" in parts:
            return _hadamard(parts)
        if "lokr_w1" in parts or "lokr_w1_a" in parts:
            return _kronecker(parts, shape)
        return parts.get("diff")


def rescale(weight: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """DoRA: the weight with the lengths that a file says, in float32.

    Raises:
        RuntimeError: as many lengths as the weight has neither rows nor columns.
    """
    if "magnitude" in tensors:
        return weight * _lengths(tensors["magnitude"].flatten(), weight, axis=0)
    if "dora_scale" not in tensors:
        return weight
    scale = tensors["dora_scale"]
    # LyCORIS measures rows or, with wd_on_out off, columns; only the shape says which.
    columns = scale.dim() > 1 and scale.shape[0] == 1 and scale.numel() == weight.shape[1]
    return weight * _lengths(scale.flatten(), weight, axis=1 if columns else 0)


def _lengths(magnitude: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    other_axes = [dimension for dimension in range(weight.dim()) if dimension != axis]
    norm: torch.Tensor = torch.linalg.vector_norm(weight, dim=other_axes, keepdim=True)
    tiny = torch.finfo(weight.dtype).tiny
    ratio: torch.Tensor = magnitude.reshape(norm.shape) / norm.clamp(min=tiny)
    return ratio


def _low_rank(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    down, up = parts["down"], parts["up"]
    rank = down.shape[0]
    if "mid" in parts:
        return _tucker(parts["mid"], up.reshape(up.shape[0], rank).t(), down.reshape(rank, -1))
    return up.reshape(up.shape[0], rank) @ down.reshape(rank, -1)


def _hadamard(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    sides = []
    for number in "12":
        first, second = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        core = parts.get(f"hada_t{number}")
        sides.append(first @ second if core is None else _tucker(core, first, second))
    return sides[0] * sides[1]


def _kronecker(parts: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        second = _tucker(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        second = parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    product = torch.kron(first.reshape(*first.shape, *(1,) * (second.dim() - first.dim())), second.contiguous())
    return product.reshape(shape) if product.numel() == shape.numel() else product


def _tucker(core: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """[r, s, h, w], [r, out], [s, in] → [out, in, h, w]."""
    return torch.einsum("rshw,ro,si->oihw", core, rows, columns)
