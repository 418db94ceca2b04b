"""Reading bodies within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from diffusion_gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator

    from diffusion_gateway.settings import RequestLimits


@dataclass
class UploadMemory:
    """Memory that bodies take, counted for all requests together.

    Args:
        limit: bytes.
        used: bytes.
    """

    limit: int
    used: int = 0

    @contextmanager
    def account(self) -> Iterator[_Account]:
        """Count the bytes of one request until the block ends."""
        account = _Account(self)
        try:
            yield account
        finally:
            self.used -= account.size


@dataclass
class _Account:
    memory: UploadMemory
    size: int = 0

    def add(self, size: int) -> None:
        """Take more memory.

        Raises:
            ApiError: there is no more.
        """
        if self.memory.used + size > self.memory.limit:
            raise ApiError(
                "too many uploads at a time: send it again later",
                status=HTTPStatus.TOO_MANY_REQUESTS,
                code="rate_limit_exceeded",
                retry_after=1,
            )
        self.memory.used += size
        self.size += size


async def read_content(
    chunks: AsyncIterable[bytes], content_length: str | None, limits: RequestLimits, account: _Account
) -> bytearray:
    """Read a body.

    Args:
        chunks: as they arrive.
        content_length: header of that name.
        limits: of the request.
        account: that counts the bytes.

    Raises:
        ApiError: it is too large or too slow, or there is no memory for it.
    """
    if content_length is not None and content_length.isdecimal() and int(content_length) > limits.upload_bytes:
        raise _too_large(limits)
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in chunks:
                if len(content) + len(chunk) > limits.upload_bytes:
                    raise _too_large(limits)
                account.add(len(chunk))
                content += chunk
    except TimeoutError as error:
        raise ApiError(
            f"the body did not arrive within {limits.body_seconds:g} s: send it faster",
            status=HTTPStatus.REQUEST_TIMEOUT,
            code="timeout",
        ) from error
    return content


def _too_large(limits: RequestLimits) -> ApiError:
    return ApiError(
        f"the body is larger than {limits.upload_bytes} bytes: send smaller images",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        code="request_too_large",
    )
