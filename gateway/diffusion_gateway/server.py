"""The process: uvicorn with limits, and the port of the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn
from prometheus_client import start_http_server

from diffusion_gateway.app import create_app
from diffusion_gateway.http_protocol import protocol_with
from diffusion_gateway.metrics import Metrics

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from diffusion_gateway.settings import Settings

_HEADER_BYTES = 16 << 10
_KEEP_ALIVE_SECONDS = 75
_DRAIN_SECONDS = 60


def run(settings: Settings, host: str, port: int, metrics_port: int) -> None:
    """Serve until SIGTERM, then finish what is running.

    Args:
        settings: of the gateway.
        host: address to listen on, for both ports.
        port: of the API and the page.
        metrics_port: of the metrics; 0 for none.

    Raises:
        SettingsError: the keys cannot be read.
    """
    metrics = Metrics()
    app = create_app(settings, metrics)
    if metrics_port:
        start_http_server(metrics_port, host, registry=metrics.registry)
    uvicorn.Server(config(app, settings, host, port)).run()


def config(app: Starlette, settings: Settings, host: str, port: int) -> uvicorn.Config:
    """How uvicorn serves the application: nothing of a client is logged or trusted."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol_with(settings.limits.header_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.limits.connections,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
