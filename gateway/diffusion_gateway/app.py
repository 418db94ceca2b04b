"""The ASGI application: routes, and what runs beside them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from diffusion_gateway.admission import Admission
from diffusion_gateway.catalog import Catalog
from diffusion_gateway.endpoints import Gateway, ImagesEndpoint, ModelsEndpoint, error_response
from diffusion_gateway.errors import ApiError
from diffusion_gateway.keys import KeyStore
from diffusion_gateway.page_routes import page_routes
from diffusion_gateway.service import ImageService
from diffusion_gateway.signing import ContentSigner
from diffusion_gateway.tracing import RequestTracer
from diffusion_gateway.triton import TritonServer
from diffusion_gateway.uploads import UploadMemory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from diffusion_gateway.metrics import Metrics
    from diffusion_gateway.settings import PipelineAddress, Settings


def create_app(
    settings: Settings, metrics: Metrics, connect: Callable[[PipelineAddress], TritonServer] = TritonServer
) -> Starlette:
    """The application.

    Args:
        settings: of the gateway.
        metrics: that it counts in.
        connect: makes the client of a pipeline's server.

    Raises:
        SettingsError: the keys cannot be read, or images cannot be signed.
    """
    keys = KeyStore(settings.keys) if settings.keys is not None else None
    signer = ContentSigner(settings.signing) if settings.signing is not None else None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # gRPC binds a channel to the event loop that it is made in.
        servers = [connect(pipeline) for pipeline in settings.pipelines]
        catalog = Catalog(servers, metrics)
        admission = Admission(settings.queue, time.monotonic)
        tracer = RequestTracer(settings.tracing)
        service = ImageService(catalog, admission, settings, tracer, signer)
        _observe(metrics, admission, settings)
        app.state.catalog = catalog
        app.routes[:0] = _api_routes(
            Gateway(settings, catalog, service, keys, UploadMemory(settings.limits.buffered_bytes), metrics, tracer)
        )
        refreshing = asyncio.create_task(_refresh(settings.refresh_seconds, catalog, keys))
        yield
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
        service.close()
        await asyncio.gather(*(server.close() for server in servers))
        await asyncio.to_thread(tracer.close)

    return Starlette(
        routes=[*page_routes(), Route("/healthz", _live), Route("/readyz", _ready)],
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )


def _api_routes(gateway: Gateway) -> list[Route]:
    models = ModelsEndpoint(gateway)
    generations, edits = ImagesEndpoint(gateway, is_edit=False), ImagesEndpoint(gateway, is_edit=True)
    return [
        Route("/v1/images/generations", generations, methods=["POST"]),
        Route("/v1/images/edits", edits, methods=["POST"]),
        Route("/v1/models", models.list_models),
        Route("/v1/models/{model}", models.get_model),
    ]


def _observe(metrics: Metrics, admission: Admission, settings: Settings) -> None:
    for pipeline in settings.pipelines:
        name = pipeline.name
        metrics.waiting.labels(name).set_function(partial(admission.waiting, name))
        metrics.running.labels(name).set_function(partial(admission.running, name))


async def _refresh(seconds: float, catalog: Catalog, keys: KeyStore | None) -> None:
    while True:
        await catalog.refresh()
        if keys is not None:
            keys.refresh()
        # A pipeline that is starting is looked at more often.
        await asyncio.sleep(seconds if catalog.is_ready else min(seconds, 1.0))


async def _live(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _ready(request: Request) -> Response:
    is_ready = request.app.state.catalog.is_ready
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return PlainTextResponse("ready" if is_ready else "no model has been seen yet", status)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    text = "there is no such path or method: see docs of the images API"
    return error_response(ApiError(text, status=status, code="not_found"), {})


async def _internal_error(_: Request, __: Exception) -> Response:
    message = "the gateway failed: its log says why"
    return error_response(ApiError(message, status=HTTPStatus.INTERNAL_SERVER_ERROR, code="internal_error"), {})
