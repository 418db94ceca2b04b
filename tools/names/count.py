"""Names that a module binds. Pure."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Count:
    """How many names are bound, and how many of them are words of the vocabulary to avoid."""

    bindings: int = 0
    matches: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.bindings + other.bindings, self.matches + other.matches)

    @property
    def percent(self) -> float:
        """Share of the matches in percent; 0 without any binding."""
        return 100 * self.matches / self.bindings if self.bindings else 0.0


def count(source: str, words: Iterable[str]) -> Count:
    """Count the bindings of a module, and those whose whole name is one of `words`.

    Case and underscores around a name do not count.

    Raises:
        SyntaxError: `source` is not Python.
    """
    vocabulary = frozenset(words)
    names = [name.strip("_").lower() for name in bound_names(ast.parse(source))]
    return Count(len(names), sum(name in vocabulary for name in names))


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Names of functions, classes and arguments, and targets of assignments, loops, with, except and match."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case _:
                pass
