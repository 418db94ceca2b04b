"""The table of values in docs/chart.md, read from values.yaml and its comments."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tools.common.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
_LINE = re.compile(r'^(?P<indent> *)(?P<quote>"?)(?P<key>[\w.-]+)(?P=quote):(?: |$)')
_INDENT = 2


@dataclass(frozen=True)
class Value:
    """One value of the chart: its dotted path, its default as JSON, and its comment."""

    path: str
    default: str
    text: str


def read(text: str) -> tuple[Value, ...]:
    """All values of a values.yaml, in its order.

    A value is what carries a comment in the line above it; what it holds is its default.

    Raises:
        ToolError: a value without a comment.
    """
    document: dict[str, Any] = yaml.safe_load(text)
    values = tuple(_commented(text.splitlines(), document))
    missing = [path for path in _leaves(document, "") if not _covered(path, values)]
    if missing:
        raise ToolError(f"values.yaml: write a comment above {', '.join(missing)}.")
    return values


def table(values: tuple[Value, ...]) -> str:
    """The values as a Markdown table."""
    rows = (f"| `{value.path}` | `{value.default}` | {value.text.replace('|', chr(92) + '|')} |" for value in values)
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def inserted(document: str, values: tuple[Value, ...]) -> str:
    """The document with the table between its two marks.

    Raises:
        ToolError: the marks are not there.
    """
    head, begin, remainder = document.partition(BEGIN)
    _, end, tail = remainder.partition(END)
    if not begin or not end:
        raise ToolError(f"docs/chart.md needs the lines {BEGIN} and {END}.")
    return f"{head}{BEGIN}\n\n{table(values)}\n\n{END}{tail}"


def _commented(lines: list[str], document: dict[str, Any]) -> Iterator[Value]:
    path: list[str] = []
    comment = ""
    for line in lines:
        match = _LINE.match(line)
        if match:
            depth = len(match["indent"]) // _INDENT
            path = [*path[:depth], match["key"]]
            if comment:
                yield Value(".".join(path), json.dumps(_at(document, path)), comment)
        # Only the line directly above a value is about it.
        comment = line.strip().removeprefix("#").strip() if line.strip().startswith("#") else ""


def _at(document: Any, path: list[str]) -> Any:  # noqa: ANN401 - any YAML
    for key in path:
        document = document[key]
    return document


def _leaves(document: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _covered(path: str, values: tuple[Value, ...]) -> bool:
    return any(path == value.path or path.startswith(f"{value.path}.") for value in values)
