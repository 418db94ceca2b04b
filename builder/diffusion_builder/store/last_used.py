"""When an artifact was last used: `uses/<digest>` holds a Unix time.

Garbage collection must not take an artifact away from a build that has just found it. Marks are written where the
store can be written, else left out: they only make collection more careful. They are no part of an artifact, whose
folder never changes.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "uses"
_DIGITS = 12


def record_use(root: Path, digest: str, now: float) -> None:
    """Remember that the artifact is in use at this time."""
    path = root / FOLDER / digest
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        # One write of constant length in place: a reader sees the old time or the new one.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, f"{int(now):0{_DIGITS}d}\n".encode(), 0)
        finally:
            os.close(descriptor)


def last_used(root: Path, digest: str, now: float) -> float:
    """Unix time of the last use; 0 when none is known.

    A mark that cannot be read counts as now and is written again, so that it ages.
    """
    try:
        text = (root / FOLDER / digest).read_bytes().strip()
    except FileNotFoundError:
        return 0.0
    except OSError:
        return now
    if text.isdigit():
        return float(text)
    record_use(root, digest, now)
    return now


def remove(root: Path, digest: str) -> None:
    """Remove the mark of an artifact that is gone."""
    with contextlib.suppress(OSError):
        (root / FOLDER / digest).unlink()
