"""Puts the test-only `trtexec` and `nvidia-smi` on PATH, with TensorRT for RTX as the compiler.

TensorRT for RTX is installed once into a folder of its own in the cache: it is of no use to the product.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from tests.support.paths import ROOT
from tests.support.tensorrt.trtexec.plan_cache import FOLDER_VARIABLE
from tools.common.packages import install_python_packages
from tools.common.paths import cache_directory

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "1.7.1.116"
_PACKAGES = (f"tensorrt-rtx-cu13-libs=={VERSION}", f"tensorrt-rtx-cu13-bindings=={VERSION}")


def install() -> Path:
    """Return the folder with TensorRT for RTX, installing it on first use.

    Raises:
        ToolError: it cannot be downloaded.
    """
    final = cache_directory() / f"tensorrt-rtx-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = final.with_name(f".tmp-{final.name}-{secrets.token_hex(4)}")
    try:
        install_python_packages(_PACKAGES, staging)
        if not final.exists():
            staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return final


def write_programs(folder: Path, gpu: str = "NVIDIA L4") -> Path:
    """Write the two programs; returns the folder, to be put first on PATH.

    Args:
        folder: an empty folder.
        gpu: the product that `nvidia-smi -L` lists; empty for none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{shlex.quote(str(install()))}:{shlex.quote(str(ROOT))}"
    plans = f"{FOLDER_VARIABLE}={shlex.quote(str(cache_directory() / 'tensorrt-rtx-plans'))}"
    write_program(
        folder / "trtexec",
        f'{plans} PYTHONPATH={path} exec {shlex.quote(sys.executable)} -m tests.support.tensorrt.trtexec.main "$@"',
    )
    listing = f"GPU 0: {gpu} (UUID: GPU-00000000-0000-0000-0000-000000000000)" if gpu else "No devices found"
    write_program(folder / "nvidia-smi", f"echo {shlex.quote(listing)}")
    return folder


def write_program(path: Path, command: str) -> None:
    """Write one of them: a line of shell."""
    path.write_text(f"#!/bin/sh\n# For tests only.\n{command}\n")
    path.chmod(0o755)
