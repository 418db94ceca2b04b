"""Starting other programs: their output goes to a log, and its end into the error."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tools.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TAIL_LINES = 15


def run_logged(command: Sequence[str], log: Path, *, what: str) -> None:
    """Run to the end with all output appended to `log`; ImageError with the last lines where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        start = output.tell()
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)  # noqa: S603 - our own commands
    if done.returncode != 0:
        said = log.read_bytes()[start:].decode(errors="replace")
        tail = "\n".join(said.splitlines()[-_TAIL_LINES:])
        raise ImageError(f"{what} failed (exit {done.returncode}).\n{tail}\nThe whole log: {log}")


def output_of(command: Sequence[str], *, what: str, cwd: Path | None = None) -> str:
    """Return what a short command prints; ImageError with its standard error where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)  # noqa: S603
    if done.returncode != 0:
        raise ImageError(f"{what} failed (exit {done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout


def succeeds(command: Sequence[str]) -> bool:
    """Whether a command exits with 0."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def need(program: str, package: str, log: Path) -> str:
    """Return the path of a program; install its Debian package where that is possible."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = shutil.which(program, path=search)
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ImageError(f"{program} is missing. Install it (Debian: apt-get install {package}) and run this again.")
    wait = ["-o", "DPkg::Lock::Timeout=600"]
    run_logged(["apt-get", "update", "-qq", *wait], log, what="apt-get update")
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *wait, package]
    run_logged(install, log, what=f"installing {package}")
    return need(program, package, log) if shutil.which(program, path=search) else _still_missing(program, package)


def _still_missing(program: str, package: str) -> str:
    raise ImageError(f"{program} is missing although the package {package} is installed.")
