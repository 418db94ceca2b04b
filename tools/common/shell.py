"""Running other programs to their end."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tools.common.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TAIL_LINES = 25
WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")
"""Put before a server's command: it ends with the thread that started it, one that is killed included."""


def run(
    argv: Sequence[str | Path],
    *,
    what: str = "",
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program and return what it printed.

    Args:
        argv: The program and its arguments.
        what: What the program does, for the error; the first words of `argv` where it is empty.
        stdin: Text for its standard input.
        env: Added to this process's environment.
        cwd: Its working directory.

    Raises:
        ToolError: The program is missing or its exit status is not 0; carries the end of its output.
    """
    process = attempt(argv, stdin=stdin, env=env, cwd=cwd)
    if process.returncode:
        name = what or f"`{' '.join(map(str, argv[:4]))}`"
        raise ToolError(f"{name} ended with status {process.returncode}", detail=tail(process.stdout + process.stderr))
    return process.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program that may fail.

    A program that is missing has status 127, and one that runs longer than `seconds` has status 124, as in a shell.
    """
    words = list(map(str, argv))
    try:
        return subprocess.run(
            words,
            input=stdin,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"{words[0]}: did not end within {seconds:.0f} s")


def run_logged(argv: Sequence[str | Path], log: Path, *, what: str) -> None:
    """Run a program with all of its output appended to a file.

    Raises:
        ToolError: Its exit status is not 0; carries the last lines of its output and names the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        start = output.tell()
        status = subprocess.run(list(map(str, argv)), stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        text = log.read_bytes()[start:].decode(errors="replace")
        raise ToolError(f"{what} ended with status {status}", detail=tail(text), do=f"read the whole log: {log}")


def tail(text: str) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])
