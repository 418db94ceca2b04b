"""A gateway on a loopback port, and waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from diffusion_gateway.app import create_app
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.server import config
from diffusion_gateway.triton import TritonServer
from tests.support.cluster.kube import eventually
from tests.support.paths import ROOT
from tools.common.shell import WITH_PARENT
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusion_gateway.settings import PipelineAddress, Settings

_SECONDS = 60.0
_CODE = [str(ROOT / folder) for folder in ("contract", "gateway")]


@dataclass(frozen=True)
class GatewayProcess:
    """A gateway in a process of its own.

    Attributes:
        url: of its API and its page.
        metrics_url: of its metrics.
        pid: of the process.
        log: what it writes.
    """

    url: str
    metrics_url: str
    pid: int
    log: Path

    @property
    def resident_bytes(self) -> int:
        """Memory that it takes now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))

    def value(self, name: str, **labels: str) -> float:
        """A number among its metrics; 0 before it has been counted."""
        families = text_string_to_metric_families(httpx.get(self.metrics_url, timeout=60.0).text)
        samples = (sample for family in families for sample in family.samples)
        full_name = f"diffusion_gateway_{name}"
        return sum(sample.value for sample in samples if sample.name == full_name and sample.labels == labels)


@contextmanager
def start_gateway(folder: Path, *options: str) -> Iterator[GatewayProcess]:
    """Start the command line; the block begins when the gateway is ready, and ends it.

    Args:
        folder: for its log.
        options: of `diffusion-gateway run`, besides the ports.
    """
    port, metrics_port = free_ports(2)
    log = folder / "gateway.log"
    command = [
        sys.executable,
        "-m",
        "diffusion_gateway",
        "run",
        "--port",
        str(port),
        "--metrics-port",
        str(metrics_port),
    ]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*WITH_PARENT, *command, *options],
            env=os.environ | {"PYTHONPATH": ":".join(_CODE)},
            stdout=sink,
            stderr=sink,
        )
    gateway = GatewayProcess(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}", process.pid, log)
    try:
        wait_until(lambda: process.poll() is not None or is_ready(gateway.url))
        assert process.poll() is None, log.read_text()
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_SECONDS)


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
    eventually(condition, _SECONDS, "the condition has not come true", pause=0.01)
