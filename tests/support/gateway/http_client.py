"""HTTP/1.1 by hand: cheap enough to load a gateway on the same processors, and able to leave a body out."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GENERATIONS = "/v1/images/generations"
_LARGEST_LINE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        headers: by name in lower case.
    """

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def error_code(self) -> str:
        """Code of the error that it holds."""
        return str(json.loads(self.content)["error"]["code"])


class Connection:
    """One connection, which is used again as long as the server keeps it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def generate(self, **fields: Any) -> Answer:  # noqa: ANN401 - fields of a request
        """Request images and wait for the answer."""
        body = json.dumps(fields).encode()
        self.send(body, len(body))
        return await self.receive()

    def send(self, body: bytes, length: int) -> None:
        """Send a request of so many bytes, and as much of its body as there is."""
        head = f"POST {GENERATIONS} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)

    async def receive(self) -> Answer:
        """The next answer.

        Raises:
            ConnectionError: the server closed the connection before.
        """
        try:
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            content = await self._reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the connection ended before an answer") from error
        return Answer(int(lines[0].split(" ")[1]), headers, content)

    async def close(self) -> None:
        """Close it."""
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    """A connection to a gateway while the block runs."""
    address = urlsplit(url)
    connection = Connection(*await asyncio.open_connection(address.hostname, address.port, limit=_LARGEST_LINE))
    try:
        yield connection
    finally:
        await connection.close()
