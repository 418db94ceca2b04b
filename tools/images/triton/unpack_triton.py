"""Unpack Triton Inference Server (CPU flavour) from the wheel of `nvidia-pytriton` into a plain folder.

The wheel carries a complete tritonserver with the ensemble scheduler and the Python backend; nothing of the
wheel's own Python code is needed. Standard library only: it runs in an image build, in tests and by hand.

    pip download --no-deps nvidia-pytriton==0.7.0
    python unpack_triton.py nvidia_pytriton-0.7.0-*.whl /opt/tritonserver

The folder then holds `bin/tritonserver`, `backends/python/` (with the stub of one Python version) and `lib/`,
which must be in LD_LIBRARY_PATH together with the folder of libpython. The folder appears at once and
complete, or not at all.
"""  # noqa: INP001 - a script beside its Containerfile, not a package

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

_SERVER = "pytriton/tritonserver/"
_LIBRARIES = "nvidia_pytriton.libs/"
_STUBS = "python_backend_stubs/"
_STUB_NAME = "triton_python_backend_stub"
_EXECUTABLE = 0o755


class WheelError(Exception):
    """The wheel does not hold what this program looks for."""


def destination(member: str, python: str) -> str | None:
    """Say where a wheel member goes, relative to the target folder.

    Args:
        member: a name in the wheel.
        python: the Python version whose stub is wanted, such as "3.11".

    Returns:
        The relative path, or None for a member that is not needed.
    """
    if member.endswith("/"):
        return None
    if member.startswith(_LIBRARIES):
        return "lib/" + member.removeprefix(_LIBRARIES)
    if not member.startswith(_SERVER):
        return None
    path = member.removeprefix(_SERVER)
    if path.startswith(_STUBS):
        return f"backends/python/{_STUB_NAME}" if path == f"{_STUBS}{python}/{_STUB_NAME}" else None
    return path


def unpack(wheel: Path, target: Path, python: str) -> None:
    """Write the server into `target`; an existing target is left as it is.

    Raises:
        WheelError: the wheel lacks the server or the stub for this Python version.
        OSError: the target's parent cannot be written.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as staging:
        root = Path(staging, "triton")
        _extract(wheel, root, python)
        for needed in ("bin/tritonserver", f"backends/python/{_STUB_NAME}"):
            if not (root / needed).is_file():
                raise WheelError(f"{wheel.name} has no {needed} for Python {python}")
            (root / needed).chmod(_EXECUTABLE)
        root.rename(target)


def _extract(wheel: Path, root: Path, python: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            relative = destination(member, python)
            if relative is None:
                continue
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="unpack tritonserver from the nvidia-pytriton wheel")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}")
    arguments = parser.parse_args()
    try:
        unpack(arguments.wheel, arguments.target, arguments.python)
    except (WheelError, zipfile.BadZipFile, OSError) as error:
        sys.stderr.write(f"cannot unpack {arguments.wheel}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
