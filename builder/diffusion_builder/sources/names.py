"""Names and sizes of untrusted files, validated before anything is read.

Every name must be one that a folder can hold and that leads nowhere else. What is used must moreover be the only file
of its name on any filesystem, and show as what it is; other files of a source do not matter.
"""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

WEIGHTS = ".safetensors"
# Larger than any vocabulary; a JSON file beyond it only costs memory.
MAX_TEXT_BYTES = 64 << 20
# More than any checkpoint has: beyond that somebody wants to fill a disk.
MAX_TOTAL_BYTES = 256 << 30
MAX_FILES = 10_000
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 1024
_MAX_DEPTH = 16
# Control characters, and halves of surrogate pairs, which stand for what is not UTF-8.
_UNWRITABLE = frozenset({"Cc", "Cs"})


def is_weights(name: str) -> bool:
    """Whether a file holds tensors."""
    return name.endswith(WEIGHTS)


def check_path(name: str) -> None:
    """Reject names that could lead out of the folder they are written to, or that not every filesystem can hold.

    Raises:
        BadInputError: absolute, parent, empty or backslashed parts, control characters, not UTF-8, or too long.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts or str(path) != name:
        raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has a file named {name!r}, which leads out of it")
    if any(unicodedata.category(character) in _UNWRITABLE for character in name):
        raise BadInputError(
            Reason.UNSAFE_PATH,
            f"the checkpoint has a file named {name!r}: control characters and names that are not UTF-8 are rejected",
        )
    longest = max(len(part.encode()) for part in path.parts)
    if longest > _MAX_NAME_BYTES or len(name.encode()) > _MAX_PATH_BYTES:
        raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has a file with too long a name: {name[:200]!r}...")


def check_paths(names: Iterable[str]) -> None:
    """Validate every name of an origin.

    Raises:
        BadInputError: too many, or an unsafe one.
    """
    for count, name in enumerate(names, 1):
        check_count(count)
        check_path(name)


def check_used(used: Iterable[str], names: Collection[str]) -> None:
    """Validate the names of the selected files.

    Args:
        used: the selected ones.
        names: all of the origin.

    Raises:
        BadInputError: a name that shows as another one, lies too deep, is one file with another name on some
            filesystems, or is inside of a file.
    """
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(_folded(name), []).append(name)
    folders = {str(folder) for name in same for folder in PurePosixPath(name).parents}
    for name in used:
        if not name.isprintable() or len(PurePosixPath(name).parts) > _MAX_DEPTH:
            raise BadInputError(
                Reason.UNSAFE_PATH,
                f"the checkpoint has a file named {name!r}, which does not show as it is or lies too deep: rename it",
            )
        folded = _folded(name)
        other = next((other for other in same.get(folded, ()) if other != name), None)
        if other is not None:
            raise BadInputError(
                Reason.UNSAFE_PATH,
                f"the checkpoint has {name!r} and {other!r}, which are one file where case does not count",
            )
        above = next((str(path) for path in PurePosixPath(folded).parents if str(path) in same), None)
        if above is not None or folded in folders:
            outer, inner = (above, name) if above is not None else (name, f"{name}/...")
            raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has {inner!r} inside of the file {outer!r}")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def check_count(count: int) -> None:
    """Reject more files than a checkpoint has.

    Raises:
        BadInputError: too many.
    """
    if count > MAX_FILES:
        raise BadInputError(Reason.TOO_LARGE, f"the checkpoint has more than {MAX_FILES} files")


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Validate sizes in bytes before anything is read.

    Raises:
        BadInputError: a text or all together are too large.
    """
    for name, size in sizes.items():
        if not is_weights(name) and size > MAX_TEXT_BYTES:
            raise BadInputError(Reason.TOO_LARGE, f"{name} has {size} bytes, at most {MAX_TEXT_BYTES} are read")
    check_total("the checkpoint", sum(sizes.values()))


def check_total(name: str, size: int) -> None:
    """Reject more bytes than any model has.

    Raises:
        BadInputError: too many.
    """
    if size > MAX_TOTAL_BYTES:
        raise BadInputError(Reason.TOO_LARGE, f"{name} has {size} bytes, at most {MAX_TOTAL_BYTES} are taken")
