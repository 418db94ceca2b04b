"""What steers the denoiser besides the text: guidance, ControlNets, reference pictures, and given embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .asked import FINITE, UNIT
from .plan import ConditionError
from .schedule import MAX_CALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .asked import Array, Asked
    from .noise import Floats
    from .plan import Plan

DEFAULT_GUIDANCE = 7.5


def column(values: Sequence[float]) -> Floats:
    """[B, 1] of one number for each sample."""
    return np.array(values, np.float32).reshape(-1, 1)


def guidance(asked: Asked) -> Floats:
    """Guidance [B, 1]; at most 1 means none, which is the same as 1 (so does diffusers).

    Raises:
        ConditionError: a value is not finite.
    """
    return np.maximum(column(asked.numbers("guidance_scale", DEFAULT_GUIDANCE, FINITE)), np.float32(1.0))


def guidance_rescale(asked: Asked) -> Floats:
    """Share [B, 1] of the guided output that gets the unguided one's deviation (section 3.4 of arXiv 2305.08891).

    Raises:
        ConditionError: a value is not in 0 to 1.
    """
    return column(asked.numbers("guidance_rescale", 0.0, UNIT))


def ip_adapter_scale(asked: Asked, *, used: bool) -> Floats:
    """Weight [B, 1] of the reference pictures; 0 in an ensemble without them.

    Raises:
        ConditionError: a value is not finite.
    """
    if not used:
        return np.zeros((asked.batch, 1), np.float32)
    return column(asked.numbers("ip_adapter_weight", 1.0, FINITE))


def control_scales(asked: Asked, name: str, calls: int) -> Floats:
    """A ControlNet's weight at each call [B, 64], 0 outside of its start and end (diffusers' `controlnet_keep`).

    Raises:
        ConditionError: a value is not served, or the end is not after the start.
    """
    scales = asked.numbers(f"control_scale_{name}", 1.0, FINITE)
    starts = asked.numbers(f"control_start_{name}", 0.0, UNIT)
    ends = asked.numbers(f"control_end_{name}", 1.0, UNIT)
    rows = np.zeros((asked.batch, MAX_CALLS), np.float32)
    for row, scale, start, end in zip(rows, scales, starts, ends, strict=True):
        if start >= end:
            raise ConditionError(
                f"control_start_{name} {start:g} is not before control_end_{name} {end:g}: send shares of the steps"
            )
        for call in range(calls):
            row[call] = scale * (call / calls >= start and (call + 1) / calls <= end)
    return rows


def text_embeddings(plan: Plan, asked: Asked, guided: Floats) -> Floats:
    """Embeddings [B, 2, L, W] instead of a text: the negative ones first.

    Args:
        plan: length and width of embeddings.
        asked: the request.
        guided: [B, 1], at most 1 where negative embeddings have no effect.

    Raises:
        ConditionError: they are missing, not finite or of another shape.
    """
    positive = _embeddings(plan, asked, "prompt_embeddings")
    if positive is None:
        raise ConditionError("prompt_embeddings is missing: send FP32 of shape [B, L, W]")
    negative = _embeddings(plan, asked, "negative_prompt_embeddings")
    if negative is None:
        if guided.max() > 1:
            raise ConditionError("negative_prompt_embeddings is missing: send it, or send guidance_scale 1")
        negative = np.zeros_like(positive)
    if negative.shape != positive.shape:
        raise ConditionError(
            f"negative_prompt_embeddings has {negative.shape[1]} tokens and prompt_embeddings {positive.shape[1]}: "
            "send the same number"
        )
    return np.stack([negative, positive], axis=1)


def _embeddings(plan: Plan, asked: Asked, name: str) -> Array | None:
    given = asked.tensor(name)
    if given is None:
        return None
    length, width, pieces = plan.text
    tokens, features = given.shape[1:]
    if features != width or tokens % length or not 0 < tokens <= length * pieces:
        lengths = f"{length}" if pieces == 1 else f"a multiple of {length} up to {length * pieces}"
        raise ConditionError(f"{name} has {tokens} tokens of {features} features: send {lengths} tokens of {width}")
    return given
