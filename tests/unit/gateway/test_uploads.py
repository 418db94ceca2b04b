"""Bodies are read within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from diffusion_gateway.errors import ApiError
from diffusion_gateway.settings import RequestLimits
from diffusion_gateway.uploads import UploadMemory, read_content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMITS = RequestLimits(upload_bytes=10, body_seconds=0.05)


async def _chunks(*chunks: bytes, is_endless: bool = False) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if is_endless:
        await asyncio.Event().wait()


def _read(memory: UploadMemory, *chunks: bytes, length: str | None = None, is_endless: bool = False) -> bytes:
    with memory.account() as account:
        content = asyncio.run(read_content(_chunks(*chunks, is_endless=is_endless), length, LIMITS, account))
        assert memory.used == len(content)
    return bytes(content)


def test_a_body_within_the_limits() -> None:
    memory = UploadMemory(100)
    assert _read(memory, b"12345", b"67890", length="10") == b"1234567890"
    assert memory.used == 0


@pytest.mark.parametrize(
    ("chunks", "length", "status"),
    [((), "11", 413), ((b"12345678", b"901"), None, 413), ((b"x" * 11,), "3", 413), ((b"123456",), None, 429)],
)
def test_a_body_that_is_too_large_whatever_its_header_says(
    chunks: tuple[bytes, ...], length: str | None, status: int
) -> None:
    memory = UploadMemory(5 if status == 429 else 100)
    with pytest.raises(ApiError) as caught:
        _read(memory, *chunks, length=length)
    assert (caught.value.status, memory.used) == (status, 0)


@pytest.mark.parametrize("length", ["-1", "many", "", "1e9"])
def test_a_length_that_is_no_number_is_not_believed(length: str) -> None:
    assert _read(UploadMemory(100), b"123", length=length) == b"123"


def test_a_body_that_does_not_end() -> None:
    with pytest.raises(ApiError, match=r"did not arrive within 0\.05 s") as caught:
        _read(UploadMemory(100), b"1", is_endless=True)
    assert caught.value.status == 408
