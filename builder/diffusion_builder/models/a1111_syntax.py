"""Prompts as AUTOMATIC1111's web interface reads them: `(word)`, `(word:1.2)`, `[word]`, `BREAK`.

Round brackets multiply the weight of what is inside by 1.1 or by the number at their end, square ones divide it by 1.1;
a backslash makes a bracket text. Brackets that stay open hold to the end. What that program decides from step to step
(`[a:b:0.5]`, `[a|b]`, `AND`) and `<lora:...>` is rejected by name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import groupby

from .errors import InvalidRequest
from .weighted_text import Break, Fragment, Part, check_depth

_FACTOR = 1.1
_TOKEN = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*([+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|[\\:]")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_UNSUPPORTED = {
    re.compile(r"<(lora|lyco|hypernet):[^<>]*>"): "add it to model.loras",
    re.compile(r"\bAND\b"): "send one prompt for each image",
}


@dataclass
class _Open:
    """A bracket that is open: its kind, and the number of the first part inside."""

    bracket: str
    first: int


@dataclass
class _Reader:
    """Parts so far, with the weights of all brackets that are closed."""

    parts: list[tuple[str | None, float]] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Text of a prompt; `BREAK` in it begins another window."""
        for index, piece in enumerate(_BREAK.split(text)):
            if index:
                if self.open:
                    raise InvalidRequest("prompt has BREAK inside of brackets: close them before it")
                self.parts.append((None, 1.0))
            self.parts.append((piece, 1.0))

    def begin(self, bracket: str) -> None:
        self.open.append(_Open(bracket, len(self.parts)))
        check_depth(len(self.open))

    def end(self, bracket: str, factor: float) -> bool:
        """Close the last bracket of this kind; false where none is open."""
        index = next((i for i in reversed(range(len(self.open))) if self.open[i].bracket == bracket), None)
        if index is None:
            return False
        self._multiply(self.open.pop(index).first, factor)
        return True

    def finish(self) -> list[Part]:
        for bracket in ("(", "["):
            while self.end(bracket, _FACTOR if bracket == "(" else 1 / _FACTOR):
                pass
        return _merge(self.parts)

    def _multiply(self, first: int, factor: float) -> None:
        self.parts[first:] = [(text, weight * factor) for text, weight in self.parts[first:]]


def parse(prompt: str) -> list[Part]:
    """Split a prompt into fragments with weights.

    Raises:
        InvalidRequest: what is not supported, or is no number, by name.
    """
    for pattern, advice in _UNSUPPORTED.items():
        if match := pattern.search(prompt):
            raise InvalidRequest(f"prompt has {match[0]!r}, which is not supported: {advice}")
    reader = _Reader()
    for match in _TOKEN.finditer(prompt):
        _read(reader, match[0], match[1])
    return reader.finish()


def _read(reader: _Reader, word: str, weight: str | None) -> None:
    innermost = reader.open[-1].bracket if reader.open else ""
    if innermost == "[" and (word == ":" or weight is not None or "|" in word):
        raise InvalidRequest("prompt has [...:...] or [...|...], which changes it from step to step: not supported")
    if word in ("(", "["):
        reader.begin(word)
    elif weight is not None and any(item.bracket == "(" for item in reader.open):
        reader.end("(", _number(weight))
    elif not ((word == ")" and reader.end("(", _FACTOR)) or (word == "]" and reader.end("[", 1 / _FACTOR))):
        # A backslash alone is left out.
        reader.add(word.removeprefix("\\"))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidRequest(f"prompt has the weight {text!r}, which is no number: send one such as 1.2") from error


def _merge(parts: list[tuple[str | None, float]]) -> list[Part]:
    """Neighbors of the same weight are one text, so that words are not torn apart."""
    merged: list[Part] = []
    for (is_break, weight), run in groupby(parts, key=lambda part: (part[0] is None, part[1])):
        texts = [text or "" for text, _ in run]
        merged += [Break() for _ in texts] if is_break else [Fragment("".join(texts), weight)]
    if any(isinstance(part, Fragment) and not math.isfinite(part.weight) for part in merged):
        raise InvalidRequest("prompt has brackets whose weight is not finite: send smaller numbers")
    return merged
