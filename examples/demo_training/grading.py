"""Does an image show what its caption says? Pure numpy, no model.

Method. The background's colour is the per-channel median of a border ring, one sixteenth of the image wide. The shape
is the largest 4-connected region of pixels that are far from that colour; its colour is the per-channel median of the
region without its outermost pixels, where anti-aliasing mixes two colours. Each is named by the nearest colour of
`words.COLOURS` in sRGB, and is nameless when even the nearest is far away, so that mud is never right by luck.
The shape itself is not graded.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .words import COLOURS, parse

T = TypeVar("T", bound=np.generic)

# sRGB units, 0..441: half the distance of the closest two colours, red and orange.
NAMEABLE = 50.0
APART = 50.0
# A region smaller than this fraction of the image is a speck, not a shape.
SMALLEST_SHAPE = 0.01


@dataclass(frozen=True)
class Verdict:
    """What is right about an image."""

    background: bool
    colour: bool

    @property
    def both(self) -> bool:
        """Whether nothing is wrong."""
        return self.background and self.colour


def grade(image: NDArray[np.uint8], caption: str) -> Verdict:
    """Compare an image with its caption.

    Args:
        image: uint8 [H, W, 3], sRGB.
        caption: a sentence of the demo checkpoint's language, see `words.Scene.caption`.

    Raises:
        ValueError: the image has another shape or type, or the caption isn't of that language.
    """
    scene = parse(caption)
    background, colour = colours_of(image)
    return Verdict(background == scene.background, colour == scene.colour)


def colours_of(image: NDArray[np.uint8]) -> tuple[str | None, str | None]:
    """Names of the background's and the shape's colour; None where there is no shape or no such name.

    Raises:
        ValueError: the image isn't uint8 [H, W, 3].
    """
    pixels = _checked(image)
    ground, region = _parts(pixels)
    if region.mean() < SMALLEST_SHAPE:
        return _name(ground), None
    core = _without_edge(region)
    return _name(ground), _name(np.median(pixels[core if core.any() else region], axis=0))


def overlap(image: NDArray[np.uint8], silhouette: NDArray[np.bool_]) -> float:
    """Intersection over union of the image's shape and a silhouette, bool [H, W].

    Raises:
        ValueError: the image isn't uint8 [H, W, 3].
    """
    _, region = _parts(_checked(image))
    return float((region & silhouette).sum() / max(1, (region | silhouette).sum()))


def mud(image: NDArray[np.uint8]) -> float:
    """Fraction of pixels that are far from both of the image's colours; a sharp image has few, at its edges.

    Raises:
        ValueError: the image isn't uint8 [H, W, 3].
    """
    pixels = _checked(image)
    ground, region = _parts(pixels)
    if not region.any():
        return 1.0
    paint = np.median(pixels[region], axis=0)
    nearest = np.minimum(np.linalg.norm(pixels - ground, axis=2), np.linalg.norm(pixels - paint, axis=2))
    return float((nearest > APART).mean())


def _checked(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:  # noqa: PLR2004 - RGB
        raise ValueError(f"an image is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    return image.astype(np.float64)


def _parts(pixels: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The background's colour [3] and the shape [H, W]."""
    ground = _border_colour(pixels)
    return ground, _largest_region(np.linalg.norm(pixels - ground, axis=2) > APART)


def _border_colour(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    width = max(1, min(pixels.shape[:2]) // 16)
    ring = np.ones(pixels.shape[:2], dtype=bool)
    ring[width:-width, width:-width] = False
    median: NDArray[np.float64] = np.median(pixels[ring], axis=0)
    return median


def _name(colour: NDArray[np.float64]) -> str | None:
    distances = {name: float(np.linalg.norm(colour - rgb)) for name, rgb in COLOURS.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= NAMEABLE else None


def _largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected part of a mask: every pixel takes the largest label around it until nothing changes."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        neighbour_maximum = np.maximum.reduce([labels, *_neighbours(labels)])
        spread = np.where(mask, neighbour_maximum, 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = mask & (labels == int(sizes.argmax()))
    return largest


def _without_edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    core: NDArray[np.bool_] = np.logical_and.reduce([mask, *_neighbours(mask)])
    return core


def _neighbours(grid: NDArray[T]) -> list[NDArray[T]]:
    """The grid shifted by one pixel in four directions; zero comes in at the edges."""
    padded = np.pad(grid, 1)
    return [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
