"""Captioned images, drawn in batches on the device that trains on them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .shapes import signed_distance
from .words import COLOURS, PLACES, SHAPES, SIZES, held_out_offset

ATLAS_SIDE = 128
# The atlas reaches beyond the outlines' unit square, so that edges on it are still anti-aliased.
ATLAS_REACH = 1.25
STATED_RATIO = 0.4
CENTRED = 0.3
JITTER = 0.03
MARGIN = 0.02


@dataclass(frozen=True)
class Captioned:
    """A batch of images.

    Args:
        pixels: float32 [B, 3, H, W] in -1..1.
        captions: int64 [B], indices into `words.every_scene`.
        silhouettes: float32 [B, 1, H, W] in 0..1, how much of each pixel the shape covers.
    """

    pixels: Tensor
    captions: Tensor
    silhouettes: Tensor


def caption_index(shape: Tensor, colour: Tensor, background: Tensor, size: Tensor, place: Tensor) -> Tensor:
    """Position in `words.every_scene`; size and place count from 1, 0 is unsaid. All int64 [B]."""
    index = (shape * len(COLOURS) + colour) * len(COLOURS) + background
    return (index * (len(SIZES) + 1) + size) * (len(PLACES) + 1) + place


class Painter:
    """Draws random scenes that are not held out; the device's default random generator decides."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._atlas = torch.from_numpy(_atlas()).to(device, torch.float32)
        self._colours = torch.tensor(list(COLOURS.values()), device=device) / 127.5 - 1
        self._sizes = torch.tensor(list(SIZES.values()), device=device)
        self._places = torch.tensor(list(PLACES.values()), device=device, dtype=torch.float32)

    def paint(self, count: int, height: int, width: int) -> Captioned:
        """Draw `count` images of height x width pixels, with their captions."""
        shape, colour, background = self._combination(count)
        size = self._integers(count, len(SIZES))
        anywhere = self._integers(count, len(PLACES))
        place = torch.where(self._chance(count, CENTRED), 0, anywhere)
        cover = self._cover(shape, size, place, (height, width))
        ground = self._colours[background][:, :, None, None]
        pixels = torch.lerp(ground, self._colours[colour][:, :, None, None], cover)
        stated_size = torch.where(self._chance(count, STATED_RATIO), size + 1, 0)
        stated_place = torch.where(self._chance(count, STATED_RATIO), place + 1, 0)
        return Captioned(pixels, caption_index(shape, colour, background, stated_size, stated_place), cover)

    def _combination(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Shape, colour and another colour behind it, all trained combinations equally often."""
        shape, colour = self._integers(count, len(SHAPES)), self._integers(count, len(COLOURS))
        offset = self._integers(count, len(COLOURS) - 2)
        offset = offset + (offset >= held_out_offset(shape, colour))
        return shape, colour, (colour + 1 + offset) % len(COLOURS)

    def _cover(self, shape: Tensor, size: Tensor, place: Tensor, pixels: tuple[int, int]) -> Tensor:
        """How much of each pixel the shape covers, float32 [B, 1, H, W] in 0..1."""
        count, (height, width) = len(shape), pixels
        low, high = self._sizes[size].unbind(1)
        radius = torch.lerp(low, high, torch.rand(count, device=self._device)) * min(height, width)
        grids = []
        for axis, length in enumerate((width, height)):
            room = (length / 2 - radius - MARGIN * length).clamp(min=0)
            jitter = (torch.rand(count, device=self._device) * 2 - 1) * JITTER * length
            centre = length / 2 + (self._places[place, axis] * room + jitter).clamp(-room, room)
            points = torch.arange(length, device=self._device) + 0.5
            grids.append((points[None] - centre[:, None]) / radius[:, None] / ATLAS_REACH)
        grid = torch.stack(
            [grids[0][:, None, :].expand(-1, height, -1), grids[1][:, :, None].expand(-1, -1, width)], dim=3
        )
        distance = functional.grid_sample(self._atlas[shape], grid, padding_mode="border", align_corners=False)
        return (0.5 - distance * radius[:, None, None, None]).clamp(0, 1)

    def _integers(self, count: int, below: int) -> Tensor:
        return torch.randint(below, (count,), device=self._device)

    def _chance(self, count: int, probability: float) -> Tensor:
        return torch.rand(count, device=self._device) < probability


def _atlas() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Signed distances of all shapes, [shapes, 1, ATLAS_SIDE, ATLAS_SIDE], in outline units."""
    axis = ((np.arange(ATLAS_SIDE) + 0.5) / ATLAS_SIDE * 2 - 1) * ATLAS_REACH
    x, y = np.meshgrid(axis, axis)
    return np.stack([signed_distance(shape, x, y)[None] for shape in SHAPES])
