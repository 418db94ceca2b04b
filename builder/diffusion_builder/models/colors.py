"""Colours of a new picture brought to those of the original around the place that was repainted."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

# Pixels outside the mask, up to so far from it, are compared.
_BAND = 16
_FEWEST = 64
_HALF = 128
# A flat band says little about contrast: its spread is not trusted further than this.
_SPREAD = (0.5, 2.0)


def matched(new: Image.Image, original: Image.Image, repainted: Image.Image | None, strength: float) -> Image.Image:
    """Shift and scale each channel, so that its mean and deviation in a band around the mask are the original's.

    Outside the mask both pictures show the same, so the difference there is what model and autoencoder did to colours.

    Args:
        new: mode RGB.
        original: mode RGB, of the same size.
        repainted: mode L, 255 where the picture is new; None compares the whole pictures.
        strength: 0 leaves the picture as it is, 1 matches in full.

    Returns:
        The new picture; unchanged where the mask leaves nothing to compare.
    """
    band = _band(new.size, repainted)
    if strength == 0 or np.count_nonzero(band) < _FEWEST:
        return new
    pixels = np.asarray(new, np.float32)
    mine, theirs = pixels[band], np.asarray(original, np.float32)[band]
    scale = np.clip((theirs.std(0) + 1) / (mine.std(0) + 1), *_SPREAD)
    full = (pixels - mine.mean(0)) * scale + theirs.mean(0)
    mixed = pixels + np.float32(strength) * (full - pixels)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def _band(size: tuple[int, int], repainted: Image.Image | None) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    if repainted is None:
        return np.ones((size[1], size[0]), np.bool_)
    # A box filter that sees a pixel of the mask is not zero: the mask widened by the band, in constant time.
    inside = repainted.point(lambda value: 255 if value >= _HALF else 0)
    near = np.asarray(inside.filter(ImageFilter.BoxBlur(_BAND)))
    band: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = (near > 0) & (np.asarray(inside) == 0)
    return band
