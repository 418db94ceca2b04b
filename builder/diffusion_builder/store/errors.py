"""Errors of the filesystem, with advice."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from diffusion_builder.errors import Reason, StoreError

if TYPE_CHECKING:
    from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def store_error(error: OSError, root: Path, needed: int = 0) -> StoreError:
    """Explain an error of the operating system.

    Args:
        error: its error.
        root: folder of the store.
        needed: bytes that the artifact takes at least; 0 if unknown.
    """
    if error.errno in _FULL:
        return store_full_error(root, needed)
    if error.errno == errno.EFBIG:
        return StoreError(
            Reason.STORE_FULL,
            f"the store {root} takes no file as large as this artifact needs ({needed} bytes and more): raise the "
            "limit for file sizes, or use another filesystem",
        )
    if error.errno in _DENIED:
        return StoreError(
            Reason.STORE_READ_ONLY,
            f"the store {root} cannot be written ({error}): mount it writable for user {os.getuid()}",
        )
    return StoreError(Reason.STORE_UNAVAILABLE, f"the store {root} cannot be used: {error}")


def store_full_error(root: Path, needed: int) -> StoreError:
    """There is no space for an artifact of so many bytes."""
    return StoreError(
        Reason.STORE_FULL,
        f"the store {root} is full: {needed} bytes or more are needed for this artifact, {free(root)} are free; "
        "make room (diffusion-builder store gc) or enlarge it",
    )


def require_space(root: Path, needed: int) -> None:
    """Fail before anything is written rather than in the middle.

    Raises:
        StoreError: fewer bytes are free.
    """
    if needed > free(root):
        raise store_full_error(root, needed)


def free(root: Path) -> int:
    """Bytes that are free for us; the nearest folder that exists decides."""
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free
