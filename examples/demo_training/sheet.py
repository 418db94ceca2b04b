"""The two images beside the checkpoint: the loss curves and a sheet of samples."""

import itertools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .training import History
from .words import COLOURS, SHAPES, Scene, held_out_scenes

COLUMNS = 8
CELL = 144
TEXT_HEIGHT = 46
MARGIN = 8
PLOT = (820, 300)
FRAME = (80, 40, 790, 260)


def sheet_scenes() -> list[Scene]:
    """48 scenes: 32 held-out combinations, one column for each shape, then eight with size and place, twice."""
    held_out, colours = held_out_scenes(), len(COLOURS)
    plain = [
        held_out[shape * colours + (shape + 2 * row) % colours] for row in range(4) for shape in range(len(SHAPES))
    ]
    with_size_or_place = (
        Scene("circle", "red", "blue", "small", "at the top left"),
        Scene("star", "yellow", "purple", "large", "in the middle"),
        Scene("heart", "red", "white", "small", "on the right"),
        Scene("ring", "orange", "black", "medium", "at the bottom"),
        Scene("triangle", "green", "yellow", "small", "at the bottom right"),
        Scene("cross", "white", "red", "large"),
        Scene("square", "blue", "orange", "small", "at the top right"),
        Scene("diamond", "black", "green", "medium", "on the left"),
    )
    return plain + list(with_size_or_place) * 2


def save_sheet(scenes: list[Scene], images: list[NDArray[np.uint8]], path: Path) -> None:
    """Write captioned images in rows of eight; each uint8 [H, W, 3], any size."""
    rows = math.ceil(len(scenes) / COLUMNS)
    pitch = CELL + MARGIN, CELL + TEXT_HEIGHT
    sheet = Image.new("RGB", (COLUMNS * pitch[0] + MARGIN, rows * pitch[1] + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, (scene, pixels) in enumerate(zip(scenes, images, strict=True)):
        x, y = MARGIN + index % COLUMNS * pitch[0], MARGIN + index // COLUMNS * pitch[1]
        image = Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.BICUBIC)
        sheet.paste(image, (x, y))
        draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), outline="#bbbbbb")
        draw.multiline_text((x, y + CELL + 3), _wrapped(scene.caption), "black", font, spacing=1)
    sheet.save(path, optimize=True)


def _wrapped(caption: str, width: int = 22) -> str:
    lines = [""]
    for word in caption.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def save_losses(histories: dict[str, History], path: Path) -> None:
    """Write one plot for each training, loss on a logarithmic axis against steps."""
    width, height = PLOT
    plot = Image.new("RGB", (width, height * len(histories)), "white")
    for row, (name, history) in enumerate(histories.items()):
        plot.paste(_curve(name, history), (0, row * height))
    plot.save(path, optimize=True)


def _curve(name: str, history: History) -> Image.Image:
    image = Image.new("RGB", PLOT, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    left, top, right, bottom = FRAME
    logs = [math.log10(loss) for loss in history.losses]
    low, high = min(logs), max(logs) + 1e-6
    points = [
        (left + step / history.steps[-1] * (right - left), bottom - (log - low) / (high - low) * (bottom - top))
        for step, log in zip(history.steps, logs, strict=True)
    ]
    draw.text((left, 12), f"{name}: training loss", "black", font)
    draw.rectangle(FRAME, outline="black")
    for tick in _ticks(low, high):
        y = bottom - (math.log10(tick) - low) / (high - low) * (bottom - top)
        draw.line((left, y, right, y), "#dddddd")
        draw.text((left - 8, y), f"{tick:g}", "black", font, anchor="rm")
    for part in range(5):
        x = left + part / 4 * (right - left)
        draw.text((x, bottom + 8), f"{history.steps[-1] * part // 4:,}", "black", font, anchor="mt")
    draw.line(points, "#1f4fbf", width=2)
    return image


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two logarithms."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [m * 10.0**d for d, m in itertools.product(decades, (1, 2, 5)) if low <= math.log10(m * 10.0**d) <= high]
