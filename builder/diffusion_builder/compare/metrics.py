"""Differences between two images of the same prompt and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffusion_builder.compare.client import Pixels

# PSNR of equal images; JSON has no infinity.
EQUAL_DB = 99.0
# Standard deviation in gray levels of an image that shows something.
_MIN_CONTRAST = 1.0
_SSIM_WINDOW = 7


@dataclass(frozen=True)
class ImageMetrics:
    """Of one pair.

    Attributes:
        psnr: dB, at most 99.
        ssim: structural similarity, -1 to 1 (Wang et al. 2004, as scikit-image computes it, over all channels).
        color_shift: 0 to 1, see `color_shift`.
        roughness: of the canary's image over that of the stable's, see `roughness`.
    """

    psnr: float
    ssim: float
    color_shift: float
    roughness: float


def measure(stable: Pixels, canary: Pixels) -> ImageMetrics:
    """Compare two images [H, W, 3]; the stable one is brought to the other's size."""
    if stable.shape != canary.shape:
        size = (canary.shape[1], canary.shape[0])
        stable = np.asarray(Image.fromarray(stable).resize(size, Image.Resampling.LANCZOS))
    window = min(_SSIM_WINDOW, (min(canary.shape[:2]) - 1) // 2 * 2 + 1)
    ssim = structural_similarity(stable, canary, channel_axis=-1, data_range=255, win_size=window)
    return ImageMetrics(
        psnr(stable, canary), float(ssim), color_shift(stable, canary), roughness(canary) / max(roughness(stable), 1e-3)
    )


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio of 8-bit images of one shape, dB, at most 99."""
    if np.array_equal(first, second):
        return EQUAL_DB
    return min(EQUAL_DB, float(peak_signal_noise_ratio(first, second, data_range=255)))


def is_constant(image: Pixels) -> bool:
    """Whether it shows one single color: black, gray or any other."""
    return bool(image.reshape(-1, 3).std(axis=0).max() < _MIN_CONTRAST)


def color_shift(first: Pixels, second: Pixels) -> float:
    """Distance of the colors, wherever they are in the image: 0 (the same colors) to 1 (black to white).

    The 1-Wasserstein distance of each channel's values, which for equally many pixels is the mean difference of the
    sorted values; the largest of red, green and blue.
    """
    ordered = [np.sort(image.reshape(-1, 3).astype(np.float64), axis=0) for image in (first, second)]
    return float(np.abs(ordered[0] - ordered[1]).mean(axis=0).max() / 255)


def roughness(image: Pixels) -> float:
    """Mean difference of neighboring pixels over the standard deviation of all: about 1.1 for noise, far less else."""
    values: NDArray[Any] = image.astype(np.float64)
    steps = (np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2
    return float(steps / max(math.sqrt(values.reshape(-1, 3).var(axis=0).mean()), _MIN_CONTRAST))
