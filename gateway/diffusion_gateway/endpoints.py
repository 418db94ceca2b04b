"""HTTP endpoints of the API."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from diffusion_gateway.admission import Caller
from diffusion_gateway.bodies import parse_body
from diffusion_gateway.connections import ClientGoneError, run_while_connected
from diffusion_gateway.errors import ApiError
from diffusion_gateway.keys import ANONYMOUS
from diffusion_gateway.responses import AnswerContext, error_event, model_list, model_object
from diffusion_gateway.tracing import close_request
from diffusion_gateway.uploads import read_content

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.trace import Span
    from starlette.types import Receive, Scope, Send

    from diffusion_gateway.catalog import Catalog
    from diffusion_gateway.keys import KeyStore
    from diffusion_gateway.metrics import Metrics
    from diffusion_gateway.service import Images, ImageService, ImageTask
    from diffusion_gateway.settings import Settings
    from diffusion_gateway.tracing import RequestTracer
    from diffusion_gateway.uploads import UploadMemory

_LOG = logging.getLogger(__name__)
# What nginx logs for a client that went away.
_CLIENT_GONE = 499
_SMALL_BODY = 64 << 10
_REQUEST_ID = "x-request-id"
_NO_SNIFFING = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


@dataclass(frozen=True)
class Gateway:
    """What the endpoints share."""

    settings: Settings
    catalog: Catalog
    service: ImageService
    keys: KeyStore | None
    uploads: UploadMemory
    metrics: Metrics
    tracer: RequestTracer

    def authenticate(self, request: Request) -> Caller:
        """Who sends the request.

        Raises:
            ApiError: it has no valid key, or comes from a page of another site.
        """
        if request.headers.get("sec-fetch-site") == "cross-site":
            message = "pages of other sites cannot use this API: send requests from your server"
            raise ApiError(message, status=HTTPStatus.FORBIDDEN, code="cross_site_request")
        if self.keys is None:
            return Caller(ANONYMOUS)
        key = self.keys.ring.identify(request.headers.get("authorization", ""))
        limits = self.settings.key_limits
        concurrent = limits.concurrent if key.concurrent is None else key.concurrent
        waiting = limits.waiting if key.waiting is None else key.waiting
        return Caller(key.name, key.priority, concurrent, waiting)


@dataclass
class _Exchange:
    """A request and what became of it, for metrics and the log.

    Args:
        operation: generate or edit.
        id: that the answer has, too.
        started: monotonic seconds.
        key: name of the key; empty before there is one.
        model: name of the pipeline; empty before it is known to exist.
        status: of the answer; 0 before there is one.
        images: that were answered.
        is_body_read: whether the connection can be used again.
    """

    operation: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    key: str = ""
    model: str = ""
    status: int = 0
    images: int = 0
    is_body_read: bool = False

    def record(self, metrics: Metrics) -> None:
        """Count and log it; neither prompts nor keys."""
        seconds = time.monotonic() - self.started
        metrics.requests.labels(self.model, self.key, self.operation, str(self.status)).inc()
        metrics.seconds.labels(self.model, self.operation).observe(seconds)
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            metrics.rejected.labels(self.model, self.key).inc()
        _LOG.info(
            "%s %s model=%s key=%s status=%d images=%d seconds=%.3f",
            self.id, self.operation, self.model, self.key, self.status, self.images, seconds,
        )  # fmt: skip

    def close_span(self, span: Span) -> None:
        """Say in its span what became of it."""
        attributes: dict[str, str | int] = {
            "model": self.model, "key": self.key, "images": self.images, "request_id": self.id,
        }  # fmt: skip
        close_request(span, self.status, {f"diffusion.{name}": value for name, value in attributes.items()})

    def headers(self) -> dict[str, str]:
        """Headers of every answer."""
        closing = {} if self.is_body_read else {"Connection": "close"}
        return {_REQUEST_ID: self.id, **_NO_SNIFFING, **closing}


class ImagesEndpoint:
    """`POST /v1/images/generations` or `/v1/images/edits`, as an ASGI application.

    Args:
        gateway: what the endpoints share.
        is_edit: which of them it is.
    """

    def __init__(self, gateway: Gateway, *, is_edit: bool) -> None:
        self._gateway, self._is_edit = gateway, is_edit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange, request = _Exchange("edit" if self._is_edit else "generate"), Request(scope, receive)
        with self._gateway.tracer.request(scope["path"], request.headers) as span:
            try:
                await self._conclude(exchange, request, send)
            finally:
                exchange.record(self._gateway.metrics)
                exchange.close_span(span)

    async def _conclude(self, exchange: _Exchange, request: Request, send: Send) -> None:
        """Answer, and write down with which status."""
        try:
            await self._answer(exchange, request, send)
        except (ClientGoneError, ClientDisconnect, TimeoutError):
            exchange.status = _CLIENT_GONE
        except ApiError as error:
            exchange.status = error.status
            await error_response(error, exchange.headers())(request.scope, request.receive, send)
        except asyncio.CancelledError:
            exchange.status = HTTPStatus.SERVICE_UNAVAILABLE
            raise
        except Exception:
            exchange.status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise

    async def _answer(self, exchange: _Exchange, request: Request, send: Send) -> None:
        caller = self._gateway.authenticate(request)
        exchange.key, exchange.model = caller.name, self._gateway.catalog.only_name or ""
        with self._gateway.uploads.account() as account:
            limits = self._gateway.settings.limits
            length = request.headers.get("content-length")
            if not _is_small(length):
                self._gateway.service.check_room()
            content = await read_content(request.stream(), length, limits, account)
            exchange.is_body_read = True
            self._gateway.service.check_room()
            body = await parse_body(request.headers, content, limits.upload_bytes)
            del content
            task = await self._gateway.service.prepare(body, caller, is_edit=self._is_edit)
            del body
            exchange.model = task.model
            headers = dict(forwarded_headers(request, self._gateway.settings.forwarded_headers))
            answer = _Answer(self._gateway, exchange, task, caller, headers)
            work = answer.stream(send) if task.fields.stream else answer.images()
            response = await run_while_connected(request.receive, work)
        if response is not None:
            exchange.status = response.status_code
            # A client that does not read its answer is cut off.
            async with asyncio.timeout(limits.request_seconds):
                await response(request.scope, request.receive, send)


@dataclass(frozen=True)
class _Answer:
    """The answer to a checked request."""

    gateway: Gateway
    exchange: _Exchange
    task: ImageTask
    caller: Caller
    headers: dict[str, str]

    @property
    def _context(self) -> AnswerContext:
        fields = self.task.fields
        return AnswerContext(int(time.time()), fields.output_format, fields.quality, self.task.is_edit)

    async def images(self) -> Response:
        images = await self.gateway.service.images(self.task, self.caller, self.headers)
        self._count(images)
        content = self._context.images(images.contents, self.task.job.seeds, images.flags)
        return Response(content, media_type="application/json", headers=self.exchange.headers())

    async def stream(self, send: Send) -> None:
        """Send events; an error before the first one is an ordinary answer."""
        try:
            async with aclosing(self.gateway.service.stream(self.task, self.caller, self.headers)) as batches:
                async for images in batches:
                    await self._start(send)
                    for event in self._events(images):
                        await _send_body(send, event)
                    self._count(images)
        except ApiError as error:
            if not self.exchange.status:
                raise
            await _send_body(send, error_event(error))
        await _send_body(send, b"", is_last=True)

    def _events(self, images: Images) -> Iterator[bytes]:
        context = self._context
        if images.preview is None:
            yield from context.completed_events(images.contents, self.task.job.seeds, images.flags)
        else:
            yield from (context.partial_event(content, images.preview) for content in images.contents)

    async def _start(self, send: Send) -> None:
        if not self.exchange.status:
            self.exchange.status = HTTPStatus.OK
            headers = {"content-type": "text/event-stream; charset=utf-8", **self.exchange.headers()}
            raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": raw})

    def _count(self, images: Images) -> None:
        kind = "image" if images.preview is None else "preview"
        count = len(images.contents)
        withheld = sum(images.flags or ())
        counter = self.gateway.metrics.images
        counter.labels(self.task.model, self.caller.name, kind).inc(count - withheld)
        if withheld:
            counter.labels(self.task.model, self.caller.name, "withheld").inc(withheld)
        self.exchange.images += count if images.preview is None else 0


def _is_small(length: str | None) -> bool:
    """Whether a body is read even for a rejection, which keeps the connection."""
    return length is not None and length.isdecimal() and int(length) <= _SMALL_BODY


async def _send_body(send: Send, content: bytes, *, is_last: bool = False) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": not is_last})


class ModelsEndpoint:
    """`GET /v1/models` and `GET /v1/models/{model}`.

    Args:
        gateway: what the endpoints share.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._created = gateway, int(time.time())

    async def list_models(self, request: Request) -> Response:
        """All models."""
        try:
            self._gateway.authenticate(request)
        except ApiError as error:
            return error_response(error, _NO_SNIFFING)
        body = model_list(self._gateway.catalog.pipelines.values(), self._created)
        return JSONResponse(body, headers=_NO_SNIFFING)

    async def get_model(self, request: Request) -> Response:
        """One model."""
        try:
            self._gateway.authenticate(request)
            pipeline = self._gateway.catalog.find(request.path_params["model"])
        except ApiError as error:
            return error_response(error, _NO_SNIFFING)
        return JSONResponse(model_object(pipeline, self._created), headers=_NO_SNIFFING)


def error_response(error: ApiError, headers: dict[str, str]) -> JSONResponse:
    """The answer to a request that failed."""
    return JSONResponse(error.body(), error.status, {**headers, **error.headers()})


def forwarded_headers(request: Request, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Headers of these names that go on to Triton: gRPC takes printable ASCII only."""
    for name in names:
        value = request.headers.get(name, "")
        if value and value.isascii() and value.isprintable():
            yield name, value
