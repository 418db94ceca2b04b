"""The little language of the demo checkpoint: what a caption can say, and what it means.

Everything here is data or a pure function of it. Order matters: an index into `COLOURS`, `SHAPES`, `SIZES` or `PLACES`
is what the training data stores.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Index = TypeVar("Index", int, "Tensor")

# sRGB, far enough apart that the nearest one is never in doubt.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (250, 135, 15),
    "yellow": (255, 240, 70),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "purple": (150, 50, 160),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "cross", "ring")
# Radius of the shape as a fraction of the image's shorter side: smallest and largest.
SIZES: dict[str, tuple[float, float]] = {
    "small": (0.16, 0.20),
    "medium": (0.23, 0.28),
    "large": (0.32, 0.37),
}
# Direction from the middle of the image: right and down are positive.
PLACES: dict[str, tuple[int, int]] = {
    "in the middle": (0, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top left": (-1, -1),
    "at the top right": (1, -1),
    "at the bottom left": (-1, 1),
    "at the bottom right": (1, 1),
}
HELD_OUT_PER_PAIR = len(COLOURS) - 1


@dataclass(frozen=True)
class Scene:
    """What a caption says; size and place may be left unsaid (None)."""

    shape: str
    colour: str
    background: str
    size: str | None = None
    place: str | None = None

    @property
    def caption(self) -> str:
        """The one sentence for this scene, e.g. `a small red circle at the top on a blue background`."""
        words = ("a", self.size, self.colour, self.shape, self.place, f"on a {self.background} background")
        return " ".join(word for word in words if word)


def parse(caption: str) -> Scene:
    """The scene that a caption of this language describes.

    Raises:
        ValueError: the caption isn't a sentence that `Scene.caption` can write.
    """
    head, _, tail = caption.partition(" on a ")
    words = head.split()
    size = words.pop(1) if len(words) > 1 and words[1] in SIZES else None
    background = tail.removesuffix(" background")
    try:
        _, colour, shape, *place = words
        scene = Scene(shape, colour, background, size, " ".join(place) or None)
    except ValueError:
        raise ValueError(f"not a caption of the demo checkpoint: {caption!r}") from None
    if scene.caption != caption or not _is_known(scene):
        raise ValueError(f"not a caption of the demo checkpoint: {caption!r}")
    return scene


def _is_known(scene: Scene) -> bool:
    return (
        scene.shape in SHAPES
        and scene.colour in COLOURS
        and scene.background in COLOURS
        and (scene.place is None or scene.place in PLACES)
    )


def every_scene() -> Iterator[Scene]:
    """All scenes in the order of the training data's caption index, see `images.caption_index`."""
    sizes, places = (None, *SIZES), (None, *PLACES)
    for parts in itertools.product(SHAPES, COLOURS, COLOURS, sizes, places):
        yield Scene(*parts)


def held_out_offset(shape: Index, colour: Index) -> Index:
    """Which background a shape of this colour is never trained on: index `colour + 1 + offset`, modulo 8.

    One for each (shape, colour), spread such that every pair of shape, colour and background is still seen.
    Works on integers and on integer tensors alike.
    """
    return (shape + colour) % HELD_OUT_PER_PAIR


def held_out_scenes() -> list[Scene]:
    """The 64 combinations of shape, colour and background that training never sees."""
    colours = tuple(COLOURS)
    return [
        Scene(name, colour, colours[(c + 1 + held_out_offset(s, c)) % len(colours)])
        for s, name in enumerate(SHAPES)
        for c, colour in enumerate(colours)
    ]
