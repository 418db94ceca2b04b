"""Slow clients and floods of headers, over real connections."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from diffusion_gateway.settings import PipelineAddress, RequestLimits, Settings
from tests.support.gateway.fake_triton import FakeTriton
from tests.support.gateway.running import RunningGateway, run_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = RequestLimits(header_seconds=0.2, body_seconds=0.2)


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    settings = Settings((PipelineAddress("shapes", "127.0.0.1:1"),), limits=LIMITS, refresh_seconds=0.05)
    with run_gateway(settings, FakeTriton) as running:
        yield running


def _exchange(gateway: RunningGateway, *parts: bytes) -> bytes:
    """Send the parts and read until the gateway closes the connection, for at most ten seconds."""
    with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=10)) as connection:
        for part in parts:
            connection.sendall(part)
        content = b""
        while chunk := connection.recv(65_536):
            content += chunk
        return content


REQUEST = b"POST /v1/images/generations HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"


def test_headers_that_do_not_arrive_end_the_connection(gateway: RunningGateway) -> None:
    assert _exchange(gateway) == b""
    assert _exchange(gateway, REQUEST) == b""


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_the_second_request_of_a_connection_has_the_same_time(gateway: RunningGateway, is_pipelined: bool) -> None:  # noqa: FBT001 - a parameter
    first, second = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n", b"GET /healthz HTTP/1.1\r\n"
    with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=10)) as connection:
        connection.sendall(first + second if is_pipelined else first)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        if not is_pipelined:
            connection.sendall(second)
        assert not connection.recv(65_536).startswith(b"HTTP/1.1")


def test_a_body_that_does_not_arrive_gets_408(gateway: RunningGateway) -> None:
    answer = _exchange(gateway, REQUEST + b"Content-Length: 20\r\nConnection: close\r\n\r\n", b'{"prompt"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.2 s" in answer


def test_a_flood_of_headers_gets_an_error(gateway: RunningGateway) -> None:
    flood = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 100) for number in range(2000))
    try:
        answer = _exchange(gateway, REQUEST + flood)
    except ConnectionResetError:
        return
    assert answer.startswith(b"HTTP/1.1 4")


def test_a_body_that_says_how_large_it_is_is_not_read(gateway: RunningGateway) -> None:
    answer = _exchange(gateway, REQUEST + b"Content-Length: 99999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_the_server_does_not_say_what_it_is(gateway: RunningGateway) -> None:
    answer = _exchange(gateway, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b"server:" not in answer.lower()
