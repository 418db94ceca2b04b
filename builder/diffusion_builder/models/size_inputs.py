"""Sizes and scores that Stable Diffusion XL is conditioned on (section 2.2 of arXiv 2307.01952)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidRequest
from .python_models import AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE, NEGATIVE_SIZE_CONDITIONS, SIZE_CONDITIONS
from .request_inputs import NumberInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .noise import Floats
    from .request_inputs import RequestInputs
    from .tensors import Tensor

_MAX_PIXELS = 16384
_PAIR = 2
# Defaults of diffusers' pipeline; the scores that the refiner was trained with are from 1 to 10.
_SCORES = NumberInput(NEGATIVE_AESTHETIC_SCORE, 2.5, 0.0, 10.0), NumberInput(AESTHETIC_SCORE, 6.0, 0.0, 10.0)


def time_ids(inputs: RequestInputs, height: int, width: int) -> Floats:
    """Original size, crop and target size [B, 2, 6], the negative ones first.

    Sizes that are left out are the image's own and the crop is at its corner, as in diffusers; a negative one that is
    left out equals the positive one.

    Args:
        inputs: the request.
        height: of the images, pixels.
        width: of the images, pixels.

    Raises:
        InvalidRequest: a size is not supported, or there are more or fewer than samples.
    """
    defaults = [np.tile(pair, (inputs.batch, 1)) for pair in ((height, width), (0, 0), (height, width))]
    positive = _pairs(inputs, SIZE_CONDITIONS, defaults)
    negative = _pairs(inputs, NEGATIVE_SIZE_CONDITIONS, positive)
    return np.stack([np.concatenate(pairs, axis=1) for pairs in (negative, positive)], axis=1).astype(np.float32)


def refiner_time_ids(inputs: RequestInputs, height: int, width: int) -> Floats:
    """Original size, crop and aesthetic score [B, 2, 5], the negative ones first.

    As in diffusers' img2img, a negative original size that is left out equals the positive one, and a negative crop is
    at the corner.

    Args:
        inputs: the request.
        height: of the images, pixels.
        width: of the images, pixels.

    Raises:
        InvalidRequest: a size or score is not supported, or there are more or fewer than samples.
    """
    corner = np.zeros((inputs.batch, _PAIR), np.float32)
    size = corner + np.array((height, width), np.float32)
    positive = _pairs(inputs, SIZE_CONDITIONS[:_PAIR], (size, corner))
    negative = _pairs(inputs, NEGATIVE_SIZE_CONDITIONS[:_PAIR], (positive[0], corner))
    scores = [np.array(inputs.numbers(score))[:, None] for score in _SCORES]
    sides = zip((negative, positive), scores, strict=True)
    rows = [np.concatenate([*pairs, score], axis=1) for pairs, score in sides]
    ids: Floats = np.stack(rows, axis=1).astype(np.float32)
    return ids


def _pairs(inputs: RequestInputs, conditions: Sequence[Tensor], defaults: Sequence[Floats]) -> list[Floats]:
    return [
        default if pairs is None else pairs
        for default, pairs in zip(defaults, (_pair(inputs, tensor) for tensor in conditions), strict=True)
    ]


def _pair(inputs: RequestInputs, tensor: Tensor) -> Floats | None:
    values = inputs.read(tensor.name)
    if values is None:
        return None
    if values.ndim != _PAIR or values.shape[1] != _PAIR:
        raise InvalidRequest(f"{tensor.name} has the shape {list(values.shape)}: send two numbers for each sample")
    inputs.require_one_per_sample(tensor.name, len(values))
    if values.min() < 0 or values.max() > _MAX_PIXELS:
        raise InvalidRequest(
            f"{tensor.name} {values.tolist()} is not supported: send two numbers from 0 to {_MAX_PIXELS} for each "
            "sample, vertical before horizontal"
        )
    return values
