"""Packages of other projects: Python's from PyPI, Debian's by apt-get."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common.errors import ToolError, bad_input
from tools.common.paths import cache_directory
from tools.common.shell import attempt, run, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

# Another installation may be running.
_APT_LOCK = "-oDPkg::Lock::Timeout=600"


def find_uv() -> Path | None:
    """Return uv, or None where it is neither named by `UV` (as `uv run` does), nor on PATH, nor in the cache."""
    variable = os.environ.get("UV")
    if variable and Path(variable).is_file():
        return Path(variable)
    program = shutil.which("uv") or shutil.which("uv", path=str(cache_directory() / "uv" / "bin"))
    return Path(program) if program else None


def require_uv() -> Path:
    """Return uv's own program: a version manager's shim would neither run inside an image nor be quick here.

    Raises:
        ToolError: There is no uv.
    """
    program = find_uv()
    if program is None:
        raise bad_input("uv is not installed", do="run `make venv` once")
    if str(program) == os.environ.get("UV"):
        return program
    # uv tells the programs that it starts where it lies.
    script = "import os; print(os.environ['UV'])"
    return Path(run([program, "run", "--no-project", "python", "-c", script], what="finding uv").strip())


def install_python_packages(packages: Sequence[str], target: Path) -> None:
    """Install pinned packages from PyPI into a folder, without what they depend on.

    Raises:
        ToolError: Neither uv nor pip can install them; carries the end of their output.
    """
    options = ["install", "--quiet", "--no-deps", "--target", str(target), *packages]
    uv = find_uv()
    installers: list[list[str | Path]] = [[uv, "pip", *options, "--python", sys.executable]] if uv else []
    installers.append([sys.executable, "-m", "pip", *options])
    failures = []
    for argv in installers:
        process = attempt(argv)
        if not process.returncode:
            return
        failures.append(process.stderr)
    raise ToolError(f"{', '.join(packages)} could not be installed from PyPI", detail="\n".join(failures))


def install_debian_packages(packages: Sequence[str]) -> None:
    """Install Debian packages.

    Raises:
        ToolError: This process is not root, there is no apt-get, or it failed.
    """
    names = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise bad_input(f"missing: {names}", do=f"install them (Debian: apt-get install {names}) and run this again")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    attempt(["apt-get", "update", "-qq", _APT_LOCK], env=env)
    argv = ["apt-get", "install", "-y", _APT_LOCK, "-qq", "--no-install-recommends", *packages]
    process = attempt(argv, env=env)
    if process.returncode:
        output = tail(process.stdout + process.stderr)
        raise bad_input(f"these packages could not be installed: {names}", detail=output, do=f"apt-get install {names}")


def require_program(name: str) -> str:
    """Return the path of a program; install the Debian package of the same name where it is missing.

    Raises:
        ToolError: It cannot be installed.
    """
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if not shutil.which(name, path=search):
        install_debian_packages([name])
    program = shutil.which(name, path=search)
    if program is None:
        raise ToolError(f"{name} is missing although its package is installed")
    return program
