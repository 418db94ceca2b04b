"""Running programs to their end, and writing files so that a kill leaves the old or the new one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.devcluster.errors import DevclusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TAIL_LINES = 25


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program and return what it printed.

    Raises:
        DevclusterError: The program is missing or its exit status is not 0; carries the end of its output.
    """
    done = attempt(argv, stdin=stdin, env=env, cwd=cwd)
    if done.returncode:
        raise DevclusterError(
            f"`{' '.join(map(str, argv[:4]))}` ended with status {done.returncode}",
            detail=tail(done.stdout + done.stderr),
        )
    return done.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program that may fail. A program that is missing has status 127, as in a shell."""
    try:
        return subprocess.run(
            list(map(str, argv)),
            input=stdin,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(list(map(str, argv)), 127, "", f"{argv[0]}: {error.strerror}")


def tail(text: str) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


def write(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Put ``content`` into ``path`` by rename, and say whether that changed anything."""
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(data)
    Path(name).replace(path)
    return True
