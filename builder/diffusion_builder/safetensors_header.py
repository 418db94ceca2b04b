"""Judge a safetensors file by its header, before a library maps it into memory.

Format: https://huggingface.co/docs/safetensors, "Format": 8 bytes little-endian header length N, N bytes of JSON,
then the tensors' bytes.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from pathlib import Path

# The limit of the reference implementation.
_MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8


def check(path: Path, name: str) -> None:
    """Refuse a file whose header is absurd or points outside of the file.

    Args:
        path: the file.
        name: how to call it in the message.

    Raises:
        BadInputError: it is not a sound safetensors file.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            raise _bad(name, "it is shorter than its own header")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            raise _bad(name, f"its header claims {length} bytes")
        text = stream.read(length)
    _check_tensors(name, text, size - _LENGTH_BYTES - length)


def _check_tensors(name: str, text: bytes, data_bytes: int) -> None:
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"] for key, entry in header.items() if key != "__metadata__"]
        sound = bool(ends) and all(0 <= begin <= end <= data_bytes for begin, end in ends)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(name, f"its header cannot be read ({type(error).__name__})") from error
    if not sound:
        raise _bad(name, "its header has no tensors or points outside of the file: it may be cut off")


def _bad(name: str, why: str) -> BadInputError:
    return BadInputError(Reason.INVALID_WEIGHTS, f"{name} is not a sound safetensors file: {why}")
