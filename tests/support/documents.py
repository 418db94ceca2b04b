"""The documentation as data: fenced blocks with their place, and the commands that it tells people to type."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PLACEHOLDER = re.compile(r"<([A-Za-z0-9][A-Za-z0-9 _-]*)>")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", flags=re.DOTALL)
_JOINTS = {"&&", "||", "|", ";", "&"}
# What `uv run` runs, behind its own options.
_AFTER_UV_RUN = {"python", "diffusion-operator", "diffusion-builder", "diffusion-gateway", "pre-commit"}
# Our own programs are looked for in running text, too.
_PROJECT_PROGRAMS = (
    "diffusion-operator ",
    "diffusion-builder ",
    "diffusion-gateway ",
    "make ",
    "python -m ",
    "python examples/",
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it says that it is, and its text."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """FILE:LINE, for a message."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A simple command: words without redirections. `whole` is False where the text only names it."""

    where: str
    words: tuple[str, ...]
    variables: tuple[str, ...]
    whole: bool


@cache
def documents() -> tuple[Path, ...]:
    """Everything that people read."""
    folders = (ROOT / "docs", ROOT / "examples", ROOT / "charts", ROOT / "tools" / "dashboards")
    return (*sorted(ROOT.glob("*.md")), *sorted(path for folder in folders for path in folder.rglob("*.md")))


@cache
def blocks() -> tuple[Block, ...]:
    """All fenced blocks, with the indentation of lists taken off."""
    return tuple(block for document in documents() for block in _blocks(document, document.read_text()))


def _blocks(document: Path, text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        indent, language, body = match.groups()
        inner = "\n".join(line.removeprefix(indent) for line in body.splitlines())
        yield Block(document, text.count("\n", 0, match.start()) + 1, language, inner)


def in_language(language: str) -> list[Block]:
    """The blocks that say that they are of this language."""
    return [block for block in blocks() if block.language == language]


def fill(text: str) -> str:
    """Replace placeholders like `<digest>` and `<40 hex>` by something of that form."""
    return _PLACEHOLDER.sub(_filled, text)


def _filled(match: re.Match[str]) -> str:
    count, _, what = match[1].partition(" ")
    return "a" * int(count) if count.isdigit() and what.startswith("hex") else match[1].replace(" ", "-")


def commands() -> list[Command]:
    """What `console` blocks say after `$`, and our own programs where the text names them."""
    typed = [
        command
        for block in in_language("console")
        for line in _typed(block.text)
        for command in split(line, block.where)
    ]
    return typed + [
        Command(str(document.relative_to(ROOT)), one.words, one.variables, whole=False)
        for document in documents()
        for code in _INLINE.findall(_FENCE.sub("", document.read_text()))
        if code.startswith(_PROJECT_PROGRAMS)
        for one in split(code, "")
    ]


def typed_lines(document: Path, heading: str) -> list[str]:
    """What the `console` blocks of a section (`## Heading`) say after `$`, each a line for a shell.

    Raises:
        ValueError: The document has no such heading.
    """
    section = re.split(r"^## ", document.read_text().partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[
        0
    ]
    if not section:
        raise ValueError(f"{document} has no section {heading!r}")
    shown = [block for block in _blocks(document, section) if block.language == "console"]
    return [line for block in shown for line in _typed(block.text)]


def _typed(text: str) -> Iterator[str]:
    """The lines after a prompt, joined where they end with a backslash."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return (line[2:] for line in joined.splitlines() if line.startswith("$ "))


def split(line: str, where: str) -> list[Command]:
    """The simple commands of a shell line, also those inside of `$(...)`; brackets of a synopsis are left out."""
    nested = [command for inner in re.findall(r"\$\(([^()]*)\)", line) for command in split(inner, where)]
    plain = re.sub(r"\.\.\.|…|[\[\]]", " ", fill(line))
    lexer = shlex.shlex(plain, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts = [list(words) for joint, words in groupby(lexer, key=lambda word: word in _JOINTS) if not joint]
    return nested + [_command(where, part, whole="..." not in line) for part in parts]


def _command(where: str, words: Sequence[str], *, whole: bool) -> Command:
    variables = []
    arguments = [word for word in words if word not in {">", "<", ">>"}]
    while arguments and _ASSIGNMENT.fullmatch(arguments[0]):
        variables.append(arguments.pop(0).partition("=")[0])
    if arguments[:2] == ["uv", "run"]:
        arguments = arguments[min(at for at, word in enumerate(arguments) if word in _AFTER_UV_RUN) :]
    return Command(where, tuple(arguments), tuple(variables), whole)
