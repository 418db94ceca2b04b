"""Reads config.pbtxt: as much of protobuf's text format as our own templates and Triton's examples use."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(r'\s*(?:#[^\n]*\s*)*("(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"#]+)')
_OPENING, _CLOSING, _COLON, _COMMA = "{", "}", ":", ","


class Message:
    """A message: every field is a list, since the text does not say which ones may be repeated."""

    def __init__(self) -> None:
        self._fields: dict[str, list[str | Message]] = {}

    def add(self, name: str, value: str | Message) -> None:
        """Add a value of a field."""
        self._fields.setdefault(name, []).append(value)

    def texts(self, name: str) -> list[str]:
        """Scalars of a field; numbers and names of enums as they are written."""
        return [value for value in self._fields.get(name, []) if isinstance(value, str)]

    def text(self, name: str, default: str = "") -> str:
        """The last scalar of a field, which is what protobuf takes too."""
        return (self.texts(name) or [default])[-1]

    def messages(self, name: str) -> list[Message]:
        """Messages of a field."""
        return [value for value in self._fields.get(name, []) if isinstance(value, Message)]


def parse(text: str, what: str) -> Message:
    """Read a file.

    Args:
        text: its content.
        what: its name, for the message.

    Raises:
        BadInputError: it is not in this format.
    """
    try:
        return _message(_tokens(text), end=None)
    except (StopIteration, ValueError) as error:
        raise BadInputError(Reason.INVALID_ENSEMBLE, f"{what} cannot be read: {error}") from error


def _tokens(text: str) -> Iterator[str]:
    place = 0
    text = text.rstrip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"unexpected text {text[place : place + 20]!r}")
        yield found[1]
        place = found.end()


def _message(tokens: Iterator[str], end: str | None) -> Message:
    message = Message()
    for name in tokens:
        if name == end:
            return message
        if name == _COMMA:
            continue
        following = next(tokens, "")
        value = next(tokens, "") if following == _COLON else following
        if value == _OPENING:
            message.add(name, _message(tokens, _CLOSING))
        elif following != _COLON or value in ("", _CLOSING, _COLON, _COMMA):
            raise ValueError(f"{name} has no value")
        elif value == "[":
            _list(message, name, tokens)
        else:
            message.add(name, _scalar(value))
    if end is not None:
        raise ValueError("it ends too early")
    return message


def _list(message: Message, name: str, tokens: Iterator[str]) -> None:
    for value in tokens:
        if value == "]":
            return
        if value == _OPENING:
            message.add(name, _message(tokens, _CLOSING))
        elif value != _COMMA:
            message.add(name, _scalar(value))
    raise ValueError("a list ends too early")


def _scalar(token: str) -> str:
    return str(json.loads(token)) if token.startswith('"') else token
