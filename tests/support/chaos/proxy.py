"""A proxy in front of an API server, on loopback, that loses, delays and repeats what passes it."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from aiohttp import web

from tests.support.chaos.faults import NO_FAULTS, Faults, Moment, WatchFault
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_HOP_HEADERS = frozenset({"host", "connection", "transfer-encoding", "content-length", "accept-encoding"})
_CREATED = 201
_CHANGE_NOTHING = ("/leases", "/selfsubjectaccessreviews")
"""Renewals of the Lease, and questions about rights."""
_LARGEST_BODY = 64 * 2**20
_GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


@dataclass(frozen=True)
class Exchange:
    """One request that arrived.

    Attributes:
        at: time of its arrival, of the monotonic clock.
        status: of the API server's answer; 0 where it was not asked or its answer was lost.
    """

    at: float
    method: str
    path: str
    status: int

    @property
    def is_write(self) -> bool:
        """Whether it changes an object other than the Lease."""
        return self.method != "GET" and not any(part in self.path for part in _CHANGE_NOTHING)


@dataclass(frozen=True)
class Upstream:
    """The API server behind the proxy, with the certificate of one user."""

    url: str
    context: ssl.SSLContext

    @classmethod
    def of(cls, kubeconfig: Path, folder: Path) -> Upstream:
        """What a kubeconfig names; the certificates are written into the folder."""
        body = yaml.safe_load(kubeconfig.read_text())
        cluster, user = body["clusters"][0]["cluster"], body["users"][0]["user"]
        paths = {name: folder / name for name in ("ca", "certificate", "key")}
        fields = (cluster["certificate-authority-data"], user["client-certificate-data"], user["client-key-data"])
        for path, text in zip(paths.values(), fields, strict=True):
            path.write_bytes(base64.b64decode(text))
        context = ssl.create_default_context(cafile=str(paths["ca"]))
        context.load_cert_chain(str(paths["certificate"]), str(paths["key"]))
        return cls(cluster["server"], context)


@dataclass
class FaultProxy:
    """One proxy, for one operator.

    Attributes:
        upstream: the API server.
        generator: of what is decided by chance.
        faults: what goes wrong now; may be replaced at any time.
        kill: ends the operator.
        exchanges: everything that arrived.
        kills: when the operator was killed.
        created_jobs: how often the API server has created a Job of a name.
    """

    upstream: Upstream
    generator: random.Random
    faults: Faults = NO_FAULTS
    kill: Callable[[], None] = lambda: None
    exchanges: list[Exchange] = field(default_factory=list)
    created_jobs: Counter[str] = field(default_factory=Counter)
    port: int = 0
    kills: list[float] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None
    _writes: int = 0
    _runner: web.AppRunner | None = None

    @property
    def writes(self) -> int:
        """Writes that arrived, without those of the Lease."""
        return self._writes

    def kubeconfig(self, folder: Path) -> Path:
        """A file that names the proxy."""
        path = folder / f"{self.port}.kubeconfig"
        cluster = {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
        users = [{"name": "proxy", "user": {"token": "unused"}}]
        body = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "proxy"}
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **body}))
        return path

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[FaultProxy]:
        """Listen until the block ends."""
        (self.port,) = free_ports(1)
        connector = aiohttp.TCPConnector(ssl=self.upstream.context, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            await self.open()
            try:
                yield self
            finally:
                await self.close()

    async def open(self) -> None:
        """Accept connections."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def close(self) -> None:
        """Cut every connection and refuse new ones, as when there is no API server."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    def requests_since(self, start: float) -> int:
        """Requests that arrived since then."""
        return sum(exchange.at >= start for exchange in self.exchanges)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            self._note(request, 0)
            return await self._watch(request)
        faults, is_write = self.faults, self._count(request)
        death = faults.kill_of(self._writes) if is_write else None
        if death is Moment.BEFORE:
            return self._die(request)
        await asyncio.sleep(faults.delay)
        if faults.errors and self.generator.random() < faults.error_share:
            self._note(request, 0)
            return web.json_response({"message": "a fault"}, status=self.generator.choice(faults.errors))
        status, headers, body = await self._forward(request)
        self._note(request, status)
        if death is Moment.AFTER:
            return self._die(request)
        if is_write and self.generator.random() < faults.lost_share:
            return _cut(request)
        return web.Response(status=status, headers=headers, body=body)

    def _count(self, request: web.Request) -> bool:
        is_write = Exchange(0.0, request.method, request.path, 0).is_write
        self._writes += is_write
        return is_write

    def _note(self, request: web.Request, status: int) -> None:
        self.exchanges.append(Exchange(time.monotonic(), request.method, request.path, status))

    def _die(self, request: web.Request) -> web.StreamResponse:
        self.kills.append(time.monotonic())
        self.kill()
        return _cut(request)

    async def _forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        body = await request.read()
        async with self._ask(request, body) as answer:
            content = await answer.read()
            if answer.status == _CREATED and request.method == "POST" and request.path.endswith("/jobs"):
                self.created_jobs[json.loads(body)["metadata"]["name"]] += 1
            return answer.status, _plain(answer.headers), content

    def _ask(self, request: web.Request, body: bytes | None) -> Any:  # noqa: ANN401 - aiohttp's context manager
        assert self._session is not None
        url = f"{self.upstream.url}{request.rel_url}"
        headers = _plain(request.headers) | {"Accept-Encoding": "identity"}
        headers.pop("Authorization", None)
        timeout = aiohttp.ClientTimeout(total=None)
        return self._session.request(request.method, url, data=body or None, headers=headers, timeout=timeout)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        async with self._ask(request, None) as answer:
            response = web.StreamResponse(status=answer.status, headers=_plain(answer.headers))
            await response.prepare(request)
            count = 0
            earlier: list[bytes] = []
            async for line in _lines(answer.content):
                count += 1
                faults = self.faults
                if faults.watch is WatchFault.GONE and count >= faults.watch_at:
                    await response.write(json.dumps(_GONE).encode() + b"\n")
                    break
                if faults.watch is WatchFault.DEAD and count >= faults.watch_at:
                    continue
                if faults.watch is WatchFault.DROP and self.generator.random() < faults.watch_share:
                    continue
                await response.write(line)
                if faults.watch is WatchFault.REPLAY and earlier and self.generator.random() < faults.watch_share:
                    await response.write(self.generator.choice(earlier))
                if b'"BOOKMARK"' not in line[:40]:
                    earlier = [*earlier[-50:], line]
            return response


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own reader refuses long ones."""
    buffer = b""
    async for chunk in content.iter_any():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"


def _plain(headers: Any) -> dict[str, str]:  # noqa: ANN401 - aiohttp's multidict
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_HEADERS}


def _cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
