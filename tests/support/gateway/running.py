"""A gateway on a loopback port, and waiting for it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import uvicorn

from diffusion_gateway.app import create_app
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.server import config
from diffusion_gateway.triton import TritonServer
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusion_gateway.settings import PipelineAddress, Settings

_SECONDS = 60.0


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that runs in a thread.

    Attributes:
        url: of its API.
        port: of its API.
        metrics: that it counts in.
    """

    url: str
    port: int
    metrics: Metrics

    def value(self, name: str, **labels: str) -> float:
        """A number among its metrics; 0 before it has been counted."""
        return self.metrics.registry.get_sample_value(f"diffusion_gateway_{name}", labels) or 0.0


@contextmanager
def run_gateway(
    settings: Settings, connect: Callable[[PipelineAddress], TritonServer] = TritonServer
) -> Iterator[RunningGateway]:
    """Serve until the block ends; it begins when the gateway is ready."""
    (port,) = free_ports(1)
    metrics = Metrics()
    server = uvicorn.Server(config(create_app(settings, metrics, connect), settings, "127.0.0.1", port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url))
        yield RunningGateway(url, port, metrics)
    finally:
        server.should_exit = True
        thread.join()


def is_ready(url: str) -> bool:
    """Whether a gateway serves a pipeline."""
    try:
        return httpx.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition has not come true"
        time.sleep(0.01)
