"""HTTP endpoints of the operator: liveness, readiness, metrics."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from diffusion_operator.errors import UnavailableError
from diffusion_operator.settings import Settings


@dataclass(frozen=True)
class HealthChecks:
    """Sources of the endpoints' answers."""

    alive: Callable[[], bool]
    ready: Callable[[], bool]
    metrics: Callable[[], bytes]


@asynccontextmanager
async def serve(settings: Settings, checks: HealthChecks) -> AsyncIterator[None]:
    """Serve /healthz and /readyz on one port and /metrics on another.

    Raises:
        UnavailableError: a port is taken.
    """
    runners = [web.AppRunner(_health(checks)), web.AppRunner(_metrics(checks))]
    try:
        for runner, port in zip(runners, (settings.health_port, settings.metrics_port), strict=True):
            await runner.setup()
            await web.TCPSite(runner, port=port).start()
        yield
    except OSError as error:
        raise UnavailableError(f"The health and metrics endpoints cannot be opened: {error}.") from error
    finally:
        for runner in runners:
            await runner.cleanup()


def _health(checks: HealthChecks) -> web.Application:
    app = web.Application()
    app.router.add_get("/healthz", _health_handler(checks.alive))
    app.router.add_get("/readyz", _health_handler(lambda: checks.alive() and checks.ready()))
    return app


def _metrics(checks: HealthChecks) -> web.Application:
    async def read(_: web.Request) -> web.Response:
        return web.Response(body=checks.metrics(), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics", read)
    return app


def _health_handler(check: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        healthy = check()
        return web.Response(status=200 if healthy else 503, text="ok" if healthy else "no")

    return answer
