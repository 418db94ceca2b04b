"""The shapes as outlines, their signed distance, and a small numpy painter for tests.

An outline lies within [-1, 1]², y pointing down. A shape is one or more closed outlines, filled by the even-odd rule.
"""

import math

import numpy as np
from numpy.typing import NDArray

from .words import COLOURS, Scene

Outline = list[tuple[float, float]]


def _circle(radius: float) -> Outline:
    angles = (2 * math.pi * k / 64 for k in range(64))
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> Outline:
    radii = (1.0, 0.45)
    return [(radii[k % 2] * math.sin(math.pi * k / 5), -radii[k % 2] * math.cos(math.pi * k / 5)) for k in range(10)]


def _heart() -> Outline:
    """The usual parametric heart, scaled into the unit square."""
    points = []
    for k in range(64):
        t = 2 * math.pi * k / 64
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3 / 16, -(y + 2.5) / 14.5))
    return points


def _cross(arm: float) -> Outline:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    outline: Outline = []
    for _ in range(4):
        outline += quarter
        quarter = [(-y, x) for x, y in quarter]
    return outline


OUTLINES: dict[str, list[Outline]] = {
    "circle": [_circle(1.0)],
    "square": [[(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]],
    "triangle": [[(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)]],
    "diamond": [[(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)]],
    "star": [_star()],
    "heart": [_heart()],
    "cross": [_cross(0.36)],
    "ring": [_circle(1.0), _circle(0.55)],
}


def signed_distance(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of points to the shape's outline, negative inside.

    Args:
        shape: one of `words.SHAPES`.
        x: float [...], in the outline's units.
        y: likewise, pointing down.

    Returns:
        float [...], in the outline's units. Method: nearest of all edges, sign by edge crossings
        (https://iquilezles.org/articles/distfunctions2d/, polygon).
    """
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for outline in OUTLINES[shape]:
        for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True):
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    distance: NDArray[np.float64] = np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
    return distance


def draw(scene: Scene, side: int, radius: float = 0.3, centre: tuple[float, float] = (0.5, 0.5)) -> NDArray[np.uint8]:
    """One anti-aliased image of a scene.

    Args:
        scene: what to draw; its size and place words are not read.
        side: pixels of the square image.
        radius: of the shape, as a fraction of the side.
        centre: x and y of the shape's centre, as fractions of the side.

    Returns:
        uint8 [side, side, 3], sRGB.
    """
    pixels = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid((pixels - centre[0]) / radius, (pixels - centre[1]) / radius)
    cover = np.clip(0.5 - signed_distance(scene.shape, x, y) * radius * side, 0, 1)[..., None]
    paint, ground = np.array(COLOURS[scene.colour]), np.array(COLOURS[scene.background])
    image: NDArray[np.uint8] = np.round(cover * paint + (1 - cover) * ground).astype(np.uint8)
    return image
