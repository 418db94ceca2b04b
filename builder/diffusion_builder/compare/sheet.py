"""The contact sheet: a row per prompt, the stable revision's image left, the canary's right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

_CELL = 256
_MARGIN = 12
_LINE = 20
_PAPER, _INK, _ALARM = "white", "black", "firebrick"
_LETTERS = 78

# Stable, canary, and three lines of text with whether it is bad news.
Row = tuple[Image.Image | None, Image.Image | None, tuple[str, str, str], bool]


def contact_sheet(titles: tuple[str, str], rows: Sequence[Row]) -> Image.Image:
    """Draw it.

    Args:
        titles: of the two columns.
        rows: one for each prompt; a image that does not exist is an empty frame.
    """
    height = _CELL + 3 * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (2 * _CELL + 3 * _MARGIN, _LINE + 2 * _MARGIN + height * len(rows)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, title in enumerate(titles):
        draw.text((_MARGIN + column * (_CELL + _MARGIN), _MARGIN), title[: _LETTERS // 2], _INK, font)
    for number, (stable, canary, lines, bad) in enumerate(rows):
        top = _LINE + 2 * _MARGIN + number * height
        for column, image in enumerate((stable, canary)):
            _paste(sheet, draw, image, (_MARGIN + column * (_CELL + _MARGIN), top))
        for index, line in enumerate(lines):
            place = (_MARGIN, top + _CELL + 4 + index * _LINE)
            draw.text(place, _short(line), _ALARM if bad and index else _INK, font)
    return sheet


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image | None, place: tuple[int, int]) -> None:
    left, top = place
    draw.rectangle((left - 1, top - 1, left + _CELL, top + _CELL), outline="gray")
    if image is None:
        draw.text((left + 8, top + 8), "no image", _ALARM)
        return
    scale = _CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small images keep their pixels visible; large ones are made smaller smoothly.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    sheet.paste(image.resize(size, how), place)


def _short(line: str) -> str:
    flat = " ".join(line.split())
    return flat if len(flat) <= _LETTERS else flat[: _LETTERS - 1] + "…"
