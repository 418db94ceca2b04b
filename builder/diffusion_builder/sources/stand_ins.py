"""What lies under a file's name instead of the file: a pointer of Git LFS, a web server's answer, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources.names import is_weights

if TYPE_CHECKING:
    from pathlib import Path

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md; the version's host may be another one.
_POINTER = b"version https://"
_POINTER_MARK = b"\noid sha256:"
_HEAD_BYTES = 1024
_MAX_QUOTED = 60


def check(path: Path, name: str) -> None:
    """Reject a file that only stands in for another one.

    Args:
        path: the file.
        name: its name in the message.

    Raises:
        BadInputError: it does.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(_POINTER) and _POINTER_MARK in head:
        raise BadInputError(
            Reason.GIT_LFS_POINTER,
            f"{name} is a Git LFS pointer and not the file: run `git lfs install` and `git lfs pull` in the clone (a "
            "plain `git clone` brings pointers), or download the repository with `hf download`",
        )
    weights = is_weights(name)
    reason = Reason.INVALID_WEIGHTS if weights else Reason.INVALID_CONFIG
    if not head and (weights or name.endswith(".json")):
        raise BadInputError(reason, f"{name} is empty: copy it again")
    start = head.lstrip()
    # A safetensors file begins with its header's length in eight bytes, the last of which are 0.
    if b"\0" not in head[:8] and start.startswith((b"<", b"{", b"[") if weights else b"<"):
        excerpt = start[:_MAX_QUOTED].decode("utf-8", "replace")
        raise BadInputError(
            reason, f"{name} is the answer of a web server, saved under its name ({excerpt!r}): download it again"
        )
