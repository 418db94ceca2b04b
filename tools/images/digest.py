"""Tags by content: an image whose inputs did not change keeps its tag, and is not built or pushed again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAG_LENGTH = 16
_IGNORED_FOLDERS = frozenset({"__pycache__"})
_IGNORED_SUFFIXES = frozenset({".pyc", ".pyo"})


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that decides what an image holds.

    Attributes:
        containerfile: Its text.
        target: Stage that is built; empty for the last.
        files: Path in the build context → SHA-256 of the file, with a mark where it is executable.
        requirements: The hashed requirements that are installed.
        parent: What it stands on: the tag of our own image, or a reference from elsewhere.
        arguments: Other build arguments, `NAME=value`.
    """

    containerfile: str
    target: str
    files: dict[str, str]
    requirements: str
    parent: str
    arguments: tuple[str, ...] = ()


def tag_of(inputs: Inputs) -> str:
    """Return the tag of an image: the first 16 hex digits of a SHA-256 over all inputs."""
    digest = hashlib.sha256()
    parts = [inputs.containerfile, inputs.target, inputs.requirements, inputs.parent, *inputs.arguments]
    parts += [f"{path}\0{value}" for path, value in sorted(inputs.files.items())]
    for part in parts:
        encoded = part.encode()
        # With its length in front no two lists of parts run together into the same bytes.
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()[:TAG_LENGTH]


def files_below(source: Path, destination: str) -> dict[str, Path]:
    """Return path in the context → file, for a file or for all files of a folder except byte code."""
    if source.is_file():
        return {destination: source}
    paths = (path for path in sorted(source.rglob("*")) if path.is_file() and _belongs(path))
    return {f"{destination}/{path.relative_to(source).as_posix()}": path for path in paths}


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, with `x` behind it where the file is executable."""
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    return value + ("x" if path.stat().st_mode & 0o100 else "")


def _belongs(path: Path) -> bool:
    return path.suffix not in _IGNORED_SUFFIXES and not _IGNORED_FOLDERS.intersection(path.parts)
