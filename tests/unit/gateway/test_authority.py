"""The host that requests to Triton's route name, as the bytes on the wire say it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import grpc  # type: ignore[import-untyped] # it has no types

from diffusion_gateway.settings import PipelineAddress
from diffusion_gateway.triton import channel_options

_HOST = "shapes.example"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_METHOD = "/inference.GRPCInferenceService/ServerLive"
_SECONDS = 30.0


def _first_bytes(authority: str) -> bytes:
    """What a call sends until it names its method, to a server that only opens the connection."""
    sent = bytearray()

    def read(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.sendall(_EMPTY_SETTINGS)
            while _METHOD.encode() not in sent and (chunk := connection.recv(65536)):
                sent.extend(chunk)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_SECONDS)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        options = channel_options(PipelineAddress("shapes", address, authority))
        reader = threading.Thread(target=read, args=(listener,))
        reader.start()
        with grpc.insecure_channel(address, options=options) as channel, suppress(grpc.RpcError):
            channel.unary_unary(_METHOD)(b"", timeout=_SECONDS)
        reader.join()
    return bytes(sent)


def test_requests_name_the_host_of_the_route() -> None:
    sent = _first_bytes(_HOST)
    assert sent.startswith(_PREFACE)
    assert _HOST.encode() in sent


def test_without_one_they_name_the_address() -> None:
    sent = _first_bytes("")
    assert _HOST.encode() not in sent
    assert b"127.0.0.1" in sent
