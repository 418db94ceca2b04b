"""What the operator answers over HTTP: is it alive, is it ready, and its metrics."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from diffusion_operator.errors import UnavailableError
from diffusion_operator.settings import Settings


@dataclass(frozen=True)
class Answers:
    """Where the answers come from."""

    alive: Callable[[], bool]
    ready: Callable[[], bool]
    metrics: Callable[[], bytes]


@asynccontextmanager
async def serve(settings: Settings, answers: Answers) -> AsyncIterator[None]:
    """Serve /healthz and /readyz on one port and /metrics on another.

    Raises:
        UnavailableError: a port is taken.
    """
    runners = [web.AppRunner(_health(answers)), web.AppRunner(_metrics(answers))]
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


def _health(answers: Answers) -> web.Application:
    app = web.Application()
    app.router.add_get("/healthz", _yes_or_no(answers.alive))
    app.router.add_get("/readyz", _yes_or_no(lambda: answers.alive() and answers.ready()))
    return app


def _metrics(answers: Answers) -> web.Application:
    async def read(_: web.Request) -> web.Response:
        return web.Response(body=answers.metrics(), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics", read)
    return app


def _yes_or_no(question: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        good = question()
        return web.Response(status=200 if good else 503, text="ok" if good else "no")

    return answer
