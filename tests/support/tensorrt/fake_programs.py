"""Shell scripts that stand in for trtexec and nvidia-smi where what they print is all that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BANNER = "&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec"
L4 = "GPU 0: NVIDIA L4 (UUID: GPU-1)"
# Writes the plan, its own arguments, and one entry more into the timing cache.
WRITES_PLAN = r"""
for argument; do case $argument in
  --help) exit 0;;
  --saveEngine=*) echo plan > "${argument#--saveEngine=}";;
  --timingCacheFile=*) echo entry >> "${argument#--timingCacheFile=}";;
esac; done
echo "[11/23/2026-16:42:43] [I] Start parsing network model."
echo "[11/23/2026-16:42:43] [I] Skipped inference phase since --skipInference is added."
"""


def write(folder: Path, *, trtexec: str = WRITES_PLAN, banner: str = BANNER, gpus: str = L4) -> Path:
    """Write both programs; returns the folder, which becomes PATH together with the usual one."""
    folder.mkdir(parents=True, exist_ok=True)
    _script(folder / "trtexec", f"echo '{banner}'\n{trtexec}")
    _script(folder / "nvidia-smi", f"echo '{gpus}'")
    return folder


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
