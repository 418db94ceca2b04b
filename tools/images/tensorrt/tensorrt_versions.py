#!/usr/bin/env python3
"""Say which TensorRT trtexec, the Python package and Triton's backend are of; fail unless it is one.

A plan is read only by the version that wrote it: trtexec writes it, the Python package checks it, the server's backend
serves it. Standard library only, without a GPU; it runs in an image:

    docker run --rm -i --entrypoint python3 IMAGE - < tools/images/tensorrt/tensorrt_versions.py
    docker run --rm -i --entrypoint python3 IMAGE - server --expect 10.13.3 < tools/images/tensorrt/tensorrt_versions.py
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_PARTS = ("trtexec", "package", "server")
_TRTEXEC_FOLDER = "/usr/src/tensorrt/bin"
_BACKEND = "backends/tensorrt/libtriton_tensorrt.so"
_BANNER = re.compile(r"TensorRT v(\d{6})")
_LIBRARY = re.compile(r"libnvinfer\.so\.\d+ => (\S+)")
_PACKAGE = "import tensorrt; print(tensorrt.__version__)"
_SECONDS = 120


class MissingPartError(Exception):
    """A part is not in the image, or does not say its version."""


def trtexec_version() -> str:
    """Return the version in trtexec's banner."""
    program = shutil.which("trtexec") or shutil.which("trtexec", path=_TRTEXEC_FOLDER)
    if program is None:
        raise MissingPartError(f"neither on PATH nor in {_TRTEXEC_FOLDER}")
    match = _BANNER.search(_output([program, "--help"]))
    if match is None:
        raise MissingPartError(f"{program} --help names no version")
    return _spelled(int(match[1]))


def package_version() -> str:
    """Return the version of the Python package, in a process of its own: it loads libraries of a gigabyte."""
    output = _output([sys.executable, "-c", _PACKAGE]).strip().splitlines()
    match = re.match(r"\d+\.\d+\.\d+", output[-1]) if output else None
    if match is None:
        raise MissingPartError(output[-1] if output else "it prints nothing")
    return match[0]


def server_version() -> str:
    """Return the version of the library that Triton's TensorRT backend is linked with."""
    backend = Path(os.environ.get("TRITON_FOLDER", "/opt/tritonserver"), _BACKEND)
    if not backend.exists():
        raise MissingPartError(f"there is no {backend}: this server has no TensorRT backend")
    match = _LIBRARY.search(_output(["ldd", str(backend)]))
    if match is None:
        raise MissingPartError(f"{backend} finds no libnvinfer")
    return _spelled(int(ctypes.CDLL(match[1]).getInferLibVersion()))


def _output(command: list[str]) -> str:
    try:
        process = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingPartError(f"{command[0]} cannot be run: {error}") from error
    return process.stdout


def _spelled(number: int) -> str:
    """101303 → 10.13.3, as TensorRT counts since version 10."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def main() -> int:
    """Print one line for each part; return 1 when one is missing or another than the others."""
    parser = argparse.ArgumentParser(description="compare the TensorRT versions of an image's parts")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)}; all of them by default")
    parser.add_argument("--expect", metavar="VERSION", help="the version that all parts must have")
    arguments = parser.parse_args()
    readers = {"trtexec": trtexec_version, "package": package_version, "server": server_version}
    if unknown := set(arguments.parts) - set(readers):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    versions = {arguments.expect} if arguments.expect else set()
    complete = True
    for part in arguments.parts or _PARTS:
        try:
            version = readers[part]()
        except (MissingPartError, OSError, AttributeError) as error:
            print(f"{part:8} missing: {error}")  # noqa: T201 - its output
            complete = False
        else:
            print(f"{part:8} {version}")  # noqa: T201 - its output
            versions.add(version)
    if len(versions) > 1:
        print(f"error: more than one version: {', '.join(sorted(versions))}", file=sys.stderr)  # noqa: T201 - same
    return 0 if complete and len(versions) == 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
