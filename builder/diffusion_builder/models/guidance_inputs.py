"""What conditions the denoiser besides the text: guidance, ControlNets, reference images, prompt embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import python_models
from .errors import InvalidRequest
from .request_inputs import NumberInput
from .schedule import MAX_CALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .conditioner_config import ConditionerConfig
    from .noise import Floats
    from .request_inputs import Array, RequestInputs
    from .tensors import Tensor

_GUIDANCE_RESCALE = NumberInput(python_models.GUIDANCE_RESCALE, 0.0, 0.0, 1.0)
_IP_ADAPTER_WEIGHT = NumberInput(python_models.IP_ADAPTER_WEIGHT, 1.0)


def _as_column(values: Sequence[float]) -> Floats:
    """[B, 1] of one number for each sample."""
    return np.array(values, np.float32).reshape(-1, 1)


def guidance(inputs: RequestInputs, default: float) -> Floats:
    """Guidance [B, 1]; at most 1 means none, which is the same as 1 (as in diffusers).

    Args:
        inputs: the request.
        default: of the task.

    Raises:
        InvalidRequest: a value is not finite.
    """
    return np.maximum(_as_column(inputs.numbers(NumberInput(python_models.GUIDANCE_SCALE, default))), np.float32(1.0))


def guidance_rescale(inputs: RequestInputs) -> Floats:
    """Fraction [B, 1] of the guided output that gets the unguided one's deviation (section 3.4 of arXiv 2305.08891).

    Raises:
        InvalidRequest: a value is not in 0 to 1.
    """
    return _as_column(inputs.numbers(_GUIDANCE_RESCALE))


def ip_adapter_scale(inputs: RequestInputs, *, has_reference: bool) -> Floats:
    """Weight [B, 1] of the reference images; 0 in an ensemble without them.

    Raises:
        InvalidRequest: a value is not finite.
    """
    if not has_reference:
        return np.zeros((inputs.batch, 1), np.float32)
    return _as_column(inputs.numbers(_IP_ADAPTER_WEIGHT))


def control_scales(inputs: RequestInputs, name: str, calls: int) -> Floats:
    """A ControlNet's weight at each call [B, 64], 0 outside of its start and end (diffusers' `controlnet_keep`).

    Raises:
        InvalidRequest: a value is not supported, or the end is not after the start.
    """
    start_input, end_input = python_models.control_start(name), python_models.control_end(name)
    scales = inputs.numbers(NumberInput(python_models.control_scale(name), 1.0))
    starts = inputs.numbers(NumberInput(start_input, 0.0, 0.0, 1.0))
    ends = inputs.numbers(NumberInput(end_input, 1.0, 0.0, 1.0))
    rows = np.zeros((inputs.batch, MAX_CALLS), np.float32)
    for row, scale, start, end in zip(rows, scales, starts, ends, strict=True):
        if start >= end:
            raise InvalidRequest(
                f"{start_input.name} {start:g} is not before {end_input.name} {end:g}: send fractions of the steps"
            )
        for call in range(calls):
            row[call] = scale * (call / calls >= start and (call + 1) / calls <= end)
    return rows


def text_embeddings(config: ConditionerConfig, inputs: RequestInputs, scales: Floats) -> Floats:
    """Embeddings [B, 2, L, W] of a request without text: the negative ones first.

    Args:
        config: length and width of embeddings.
        inputs: the request.
        scales: guidance [B, 1], at most 1 where negative embeddings have no effect.

    Raises:
        InvalidRequest: they are missing, not finite or of another shape.
    """
    positive = _embeddings(config, inputs, python_models.PROMPT_EMBEDDINGS)
    if positive is None:
        raise InvalidRequest("prompt_embeddings is missing: send FP32 of shape [B, L, W]")
    negative = _embeddings(config, inputs, python_models.NEGATIVE_PROMPT_EMBEDDINGS)
    if negative is None:
        if scales.max() > 1:
            raise InvalidRequest("negative_prompt_embeddings is missing: send it, or send guidance_scale 1")
        negative = np.zeros_like(positive)
    if negative.shape != positive.shape:
        raise InvalidRequest(
            f"negative_prompt_embeddings has {negative.shape[1]} tokens and prompt_embeddings {positive.shape[1]}: "
            "send the same number"
        )
    return np.stack([negative, positive], axis=1)


def pooled_embeddings(config: ConditionerConfig, inputs: RequestInputs, scales: Floats) -> Floats:
    """Embeddings [B, 2, P] of whole prompts of a request without text: the negative ones first.

    Args:
        config: their width.
        inputs: the request.
        scales: guidance [B, 1], at most 1 where negative embeddings have no effect.

    Raises:
        InvalidRequest: they are missing, not finite or of another width.
    """
    positive = _pooled(config, inputs, python_models.POOLED_PROMPT_EMBEDDINGS)
    negative = _pooled(config, inputs, python_models.NEGATIVE_POOLED_PROMPT_EMBEDDINGS)
    if positive is None:
        raise InvalidRequest(f"pooled_prompt_embeddings is missing: send FP32 of shape [B, {config.pooled_width}]")
    if negative is None:
        if scales.max() > 1:
            raise InvalidRequest("negative_pooled_prompt_embeddings is missing: send it, or send guidance_scale 1")
        negative = np.zeros_like(positive)
    return np.stack([negative, positive], axis=1)


def _pooled(config: ConditionerConfig, inputs: RequestInputs, tensor: Tensor) -> Array | None:
    embeddings = inputs.finite(tensor)
    if embeddings is not None and embeddings.shape[1:] != (config.pooled_width,):
        raise InvalidRequest(
            f"{tensor.name} has the shape {list(embeddings.shape)}: send FP32 of shape [B, {config.pooled_width}]"
        )
    return embeddings


def _embeddings(config: ConditionerConfig, inputs: RequestInputs, tensor: Tensor) -> Array | None:
    embeddings = inputs.finite(tensor)
    if embeddings is None:
        return None
    length, width, pieces = config.text
    tokens, features = embeddings.shape[1:]
    if features != width or tokens % length or not 0 < tokens <= length * pieces:
        lengths = f"{length}" if pieces == 1 else f"a multiple of {length} up to {length * pieces}"
        raise InvalidRequest(
            f"{tensor.name} has {tokens} tokens of {features} features: send {lengths} tokens of {width}"
        )
    return embeddings
