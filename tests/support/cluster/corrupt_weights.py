"""Corrupts a denoiser's weights, with the standard library alone: it runs in the hub's pod, and in the tests.

python corrupt_weights.py FOLDER_OF_THE_DENOISER OUT      # writes OUT/nan and OUT/shuffled
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

WEIGHTS = "diffusion_pytorch_model.safetensors"
NOT_A_NUMBER = b"\x00\x7e"  # float16, little endian


def corrupted(data: bytes, how: str) -> bytes:
    """A safetensors file of float16 tensors with the last convolution's weights made NaN, or in another order."""
    (length,) = struct.unpack("<Q", data[:8])
    start, end = json.loads(data[8 : 8 + length])["conv_out.weight"]["data_offsets"]
    start, end = start + 8 + length, end + 8 + length
    weights = data[start:end]
    if how == "nan":
        changed = NOT_A_NUMBER * (len(weights) // 2)
    else:
        changed = b"".join(weights[place : place + 2] for place in range(len(weights) - 2, -1, -2))
    return data[:start] + changed + data[end:]


def write(source: Path, out: Path) -> None:
    """Write both."""
    for how in ("nan", "shuffled"):
        folder = out / how
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / "config.json", folder / "config.json")
        (folder / WEIGHTS).write_bytes(corrupted((source / WEIGHTS).read_bytes(), how))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
