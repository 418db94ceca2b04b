"""Prompts as Compel reads them: `word++`, `word-`, `(some words)1.3`, `"some words"--`, nested at will.

Of its grammar what weighs words; `.and()`, `.blend()`, `.swap()`, `.attend()` and LoRAs are rejected by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from .errors import InvalidRequest
from .weighted_text import Fragment, check_depth

_PLUS, _MINUS = 1.1, 0.9
_OPERATOR = re.compile(r"\.(and|add|blend|swap|attend)\s*\(|\b(withLora|useLora)\s*\(")
_BLANK = re.compile(r"\s*")
_FREE_WORD = re.compile(r"\S+")
# A word without syntax: plus and minus are part of it only where something follows.
_WORD = re.compile(r'(?:\\[()",.+\-=]|[-+](?![\s()",.+\-=]|$)|[^\s()",.+\-=])+')
_QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
_SIGNS = re.compile(r"\++|-+")
_WEIGHT = re.compile(r"\++|-+|\d+\.\d*|\.\d+|\d+")


@dataclass(frozen=True)
class _Parsed:
    """Fragments, and the position behind them."""

    fragments: list[Fragment]
    end: int


def parse(prompt: str) -> list[Fragment]:
    """Split a prompt into fragments with weights; neighbors of the same weight are joined.

    Raises:
        InvalidRequest: an operator that is not supported, by name.
    """
    if match := _OPERATOR.search(prompt):
        name = match[1] or match[2]
        raise InvalidRequest(f"prompt has {name}(), which is not supported: use +, - and (words)1.2")
    text = re.sub(r",(\S)", r", \1", prompt)
    fragments: list[Fragment] = []
    position = _skip(text, 0)
    while position < len(text):
        part = _weighted(text, position, 1) or _free_word(text, position)
        fragments += part.fragments
        position = _skip(text, part.end)
    return _join(fragments)


def _weighted(text: str, position: int, depth: int) -> _Parsed | None:
    """A quotation or brackets, with a weight behind or without; or a word with signs behind it."""
    group = _quoted(text, position, depth) or _brackets(text, position, depth)
    if group is not None:
        return _weigh(group, _WEIGHT.match(text, group.end)) or group
    word = _word(text, position)
    return None if word is None else _weigh(word, _SIGNS.match(text, word.end))


def _weigh(target: _Parsed, operator: re.Match[str] | None) -> _Parsed | None:
    if operator is None:
        return None
    sign = operator[0]
    base = {"+": _PLUS, "-": _MINUS}.get(sign[0])
    factor = float(sign) if base is None else base ** len(sign)
    return _Parsed([Fragment(part.text, factor * part.weight) for part in target.fragments], operator.end())


def _brackets(text: str, position: int, depth: int) -> _Parsed | None:
    if text[position : position + 1] != "(":
        return None
    check_depth(depth)
    inner = _items(text, position + 1, depth)
    return _Parsed(inner.fragments, inner.end + 1) if text[inner.end : inner.end + 1] == ")" else None


def _quoted(text: str, position: int, depth: int) -> _Parsed | None:
    match = _QUOTED.match(text, position)
    if match is None:
        return None
    check_depth(depth)
    content = match[1]
    if not content.strip():
        return _Parsed([Fragment("", 1.0)], match.end())
    inner = _items(content, 0, depth)
    return _Parsed(inner.fragments, match.end()) if inner.end == len(content) else None


def _items(text: str, position: int, depth: int) -> _Parsed:
    """What brackets may hold, as far as it goes: there each comma and period is a fragment of its own."""
    fragments: list[Fragment] = []
    position = _skip(text, position)
    while position < len(text):
        part = _weighted(text, position, depth + 1) or _word(text, position)
        if part is None and text[position] in ",.":
            part = _Parsed([Fragment(text[position], 1.0)], position + 1)
        if part is None:
            break
        fragments += part.fragments
        position = _skip(text, part.end)
    return _Parsed(fragments, position)


def _word(text: str, position: int) -> _Parsed | None:
    match = _WORD.match(text, position)
    return None if match is None else _Parsed([Fragment(_unescape(match[0]), 1.0)], match.end())


def _free_word(text: str, position: int) -> _Parsed:
    """Anything up to the next blank, where no syntax fits: brackets in it are text."""
    match = _FREE_WORD.match(text, position)
    word = match[0] if match else text[position:]
    return _Parsed([Fragment(_unescape(word), 1.0)], position + len(word))


def _unescape(text: str) -> str:
    return text.replace("\\(", "(").replace("\\)", ")").replace('\\"', '"')


def _skip(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _join(fragments: list[Fragment]) -> list[Fragment]:
    joined = []
    for weight, run in groupby(fragments, key=lambda fragment: fragment.weight):
        texts = [_unescape(fragment.text) for fragment in run]
        # Compel unescapes a text whenever it handles it.
        joined.append(Fragment(_unescape(" ".join(texts)) if len(texts) > 1 else texts[0], weight))
    return joined or [Fragment("", 1.0)]
