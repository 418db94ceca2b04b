"""Validate a safetensors file by its header, before a library maps it into memory.

Format: https://huggingface.co/docs/safetensors, "Format": 8 bytes little-endian header length N, N bytes of JSON,
then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The limit of the reference implementation.
_MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 16
_MAX_COUNT = 1 << 63
# How files of torch.save begin: zip, or the pickle protocols 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# Bits of an element, as in the reference implementation's `Dtype`.
_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def check(path: Path, name: str) -> None:
    """Reject a file whose header is absurd or does not describe the file byte for byte.

    Args:
        path: the file.
        name: its name in the message.

    Raises:
        BadInputError: it is not a sound safetensors file.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            raise _invalid(name, "it is shorter than its own header")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            # Only now: a sound header of 640 bytes begins as a pickle does.
            if prefix.startswith(_PICKLES):
                raise BadInputError(
                    Reason.PICKLE_ONLY, f"{name} is a pickle under another name, which can run code when it is loaded"
                )
            raise _invalid(name, f"its header claims {length} bytes")
        text = stream.read(length)
    _check_tensors(name, _parse(name, text), size - _LENGTH_BYTES - length)


def _parse(name: str, text: bytes) -> Mapping[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            raise _invalid(name, "its header has an entry twice")
        return entries

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _invalid(name, f"its header cannot be read ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise _invalid(name, "its header is no JSON object")
    return header


def _check_tensors(name: str, header: Mapping[str, Any], data_bytes: int) -> None:
    """As the reference implementation does: tensors fill the file without gaps or overlaps."""
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid(name, "its __metadata__ is no map from text to text")
    spans = sorted(_span(name, key, entry) for key, entry in header.items() if key != "__metadata__")
    if not spans:
        raise _invalid(name, "it has no tensors")
    position = 0
    for begin, end, tensor in spans:
        if begin != position:
            what = "overlaps another one" if begin < position else "leaves a gap before it"
            raise _invalid(name, f"tensor {tensor!r} {what}")
        position = end
    if position > data_bytes:
        raise _invalid(name, f"tensors need {position} bytes, it has {data_bytes}: it may be cut off")
    if position < data_bytes:
        raise _invalid(name, f"{data_bytes - position} bytes follow after the last tensor")


def _span(name: str, tensor: str, entry: object) -> tuple[int, int, str]:
    """Begin and end of a tensor's bytes, and its name."""
    excerpt = tensor[:80]
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _invalid(name, f"tensor {excerpt!r} lacks dtype, shape or data_offsets")
    bits, shape, offsets = _BITS.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if bits is None:
        raise _invalid(name, f"tensor {excerpt!r} has the unknown dtype {str(entry['dtype'])[:40]!r}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:  # noqa: PLR2004
        raise _invalid(name, f"tensor {excerpt!r} has a shape or offsets that are no counts")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * bits:
        raise _invalid(name, f"tensor {excerpt!r} of {end - begin} bytes does not fit its shape and dtype")
    return begin, end, excerpt


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_COUNT for item in value)


def _invalid(name: str, why: str) -> BadInputError:
    return BadInputError(Reason.INVALID_WEIGHTS, f"{name} is not a sound safetensors file: {why}")
