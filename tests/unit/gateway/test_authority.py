"""The host that requests to Triton's route name, as the bytes on the wire say it."""

from __future__ import annotations

import asyncio

from diffusion_gateway.settings import PipelineAddress
from diffusion_gateway.triton import TritonServer

_HOST = "shapes.example"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


async def _first_bytes(authority: str) -> bytes:
    """What a call sends until it names its method, to a server that only opens the connection."""
    sent = bytearray()
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_EMPTY_SETTINGS)
        while chunk := await reader.read(65536):
            sent.extend(chunk)
            if b"GRPCInferenceService" in sent:
                arrived.set()
        writer.close()
        await writer.wait_closed()
        ended.set()

    listener = await asyncio.start_server(read, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server = TritonServer(PipelineAddress("shapes", f"127.0.0.1:{port}", authority))
    call = asyncio.ensure_future(server.discover())
    async with asyncio.timeout(30):
        await arrived.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await server.close()
        await ended.wait()
    listener.close()
    await listener.wait_closed()
    return bytes(sent)


def test_requests_name_the_host_of_the_route() -> None:
    sent = asyncio.run(_first_bytes(_HOST))
    assert sent.startswith(_PREFACE)
    assert _HOST.encode() in sent


def test_without_one_they_name_the_address() -> None:
    sent = asyncio.run(_first_bytes(""))
    assert _HOST.encode() not in sent
    assert b"127.0.0.1" in sent
