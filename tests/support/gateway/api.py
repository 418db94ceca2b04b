"""A gateway in this process, a client of it, and a Triton that answers when a test lets it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from diffusion_gateway.app import create_app
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.settings import (
    PipelineAddress,
    Settings,
)
from tests.support.gateway.fake_triton import FakeTriton

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


SETTINGS = Settings((PipelineAddress("shapes", "127.0.0.1:1"),), refresh_seconds=0.01)
GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PROMPT = {"prompt": "a red star"}


class Api:
    """A client of a gateway, and the Triton behind it."""

    def __init__(self, client: httpx.AsyncClient, triton: FakeTriton, metrics: Metrics, app: Any) -> None:  # noqa: ANN401
        self.client, self.triton, self.metrics, self.app = client, triton, metrics, app

    async def post(self, path: str = GENERATIONS, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:  # noqa: ANN401
        return await self.client.post(path, json={**PROMPT, **body}, headers=headers)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"diffusion_gateway_{name}", labels) or 0.0

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - a metric has no event
                await asyncio.sleep(0.001)


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[Api]:
    servers: list[FakeTriton] = []

    def connect(pipeline: PipelineAddress) -> FakeTriton:
        servers.append(FakeTriton(pipeline))
        return servers[-1]

    metrics = Metrics()
    app = create_app(settings, metrics, connect)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        api = Api(client, servers[0], metrics, app)
        await api.wait_until(lambda: app.state.catalog.is_ready)
        yield api


def run(test: Callable[[Api], Awaitable[None]], settings: Settings = SETTINGS) -> None:
    async def main() -> None:
        async with open_api(settings) as api:
            await test(api)

    asyncio.run(main())
