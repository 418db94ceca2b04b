"""Colors of a repainted image matched to those of the input image around the mask."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

# Pixels outside the mask, up to this distance from it, are compared.
_BAND = 16
_MIN_PIXELS = 64
_HALF = 128
# A flat band says little about contrast: its spread is not trusted further than this.
_SPREAD = (0.5, 2.0)


def match_colors(
    image: Image.Image, original: Image.Image, changed: Image.Image | None, strength: float
) -> Image.Image:
    """Shift and scale each channel, so that its mean and deviation in a band around the mask are the original's.

    Outside the mask both images show the same, so the difference there is what model and autoencoder did to colors.

    Args:
        image: mode RGB.
        original: mode RGB, of the same size.
        changed: mode L, 255 where the image was repainted; None compares the whole images.
        strength: 0 leaves the image as it is, 1 matches in full.

    Returns:
        The matched image; unchanged where the mask leaves nothing to compare.
    """
    band = _band(image.size, changed)
    if strength == 0 or np.count_nonzero(band) < _MIN_PIXELS:
        return image
    pixels = np.asarray(image, np.float32)
    image_band, original_band = pixels[band], np.asarray(original, np.float32)[band]
    scale = np.clip((original_band.std(0) + 1) / (image_band.std(0) + 1), *_SPREAD)
    full = (pixels - image_band.mean(0)) * scale + original_band.mean(0)
    mixed = pixels + np.float32(strength) * (full - pixels)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def _band(size: tuple[int, int], changed: Image.Image | None) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    if changed is None:
        return np.ones((size[1], size[0]), np.bool_)
    # A box filter that sees a pixel of the mask is not zero: the mask widened by the band, in constant time.
    inside = changed.point(lambda value: 255 if value >= _HALF else 0)
    near = np.asarray(inside.filter(ImageFilter.BoxBlur(_BAND)))
    band: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = (near > 0) & (np.asarray(inside) == 0)
    return band
