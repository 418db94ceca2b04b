"""What the gateway costs in front of Triton, and what it does with more than can be served.

Builds the demo checkpoint for the CPU and starts one real Triton and a gateway in front of it. In one run:

* `images_per_second`: of clients that send one request after the other, in turns straight to Triton (gRPC, the same
  requests) and through the gateway; medians of rounds, and the median of the ratios of neighbors. The clients share
  the processors with the servers: a client of the gateway also writes and reads HTTP and base64.
* `added_ms`: latency of a lone client through the gateway less that of a lone client of Triton; medians of requests
  in turns.
* `rejections`: 200 connections send `LOAD` times as many requests as were served, at even distances; how long 429
  took, from the first byte sent to the last one read, and how many images were served meanwhile.
* `waiting`: resident memory with 500 clients that wait while Triton is stopped, and before they came.

Writes out/bench-gateway.json.

    python -m benchmarks.gateway --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from diffusion_gateway.fields import ImageFields
from diffusion_gateway.inference import plan_job
from diffusion_gateway.settings import PipelineAddress
from diffusion_gateway.triton import TritonServer
from tests.support.builder.checkpoints import DEMO
from tests.support.builder.repository import Built, build_repository
from tests.support.gateway.http_client import Answer, Connection, connect
from tests.support.gateway.running import GatewayProcess, start_gateway, wait_until
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from diffusion_gateway.ensembles import Pipeline

STEPS, CLIENTS, ROUNDS, LONE_REQUESTS = 20, 16, 5, 40
CONCURRENT, WAITING = 16, 64
LOAD, CONNECTIONS = 20, 200
PATIENT = 500
PROMPT = "a red circle on a blue background"
OUT = Path(__file__).parents[1] / "out" / "bench-gateway.json"
_SECONDS = 300
_MILLISECONDS, _MIB = 1000, 1 << 20
Metrics = dict[str, Any]
# Gets the image of a seed.
Client = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Bench:
    """Both servers, and what their clients need to know."""

    triton: Server
    gateway: GatewayProcess
    direct: TritonServer
    pipeline: Pipeline
    seconds: float

    async def image_of_triton(self, seed: int) -> None:
        """One image straight from Triton, by the gateway's own request."""
        fields = ImageFields(prompt=PROMPT, num_inference_steps=STEPS)
        await self.direct.infer(plan_job(self.pipeline, fields, {}, seed).request, {}, _SECONDS)

    @asynccontextmanager
    async def connections(self, count: int) -> AsyncIterator[list[Connection]]:
        """Connections to the gateway."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(connect(self.gateway.url)) for _ in range(count)]


async def image_of_gateway(connection: Connection, seed: int) -> Answer:
    """One image through the gateway, or what it says instead."""
    return await connection.generate(prompt=PROMPT, num_inference_steps=STEPS, seed=seed)


async def images_per_second(clients: Sequence[Client], seconds: float) -> float:
    """Of clients that send one request after the other."""
    served, begin = 0, time.monotonic()

    async def work(number: int, client: Client) -> None:
        nonlocal served
        while time.monotonic() - begin < seconds:
            await client(number * 1_000_000 + served)
            served += 1

    await asyncio.gather(*(work(number, client) for number, client in enumerate(clients)))
    return served / (time.monotonic() - begin)


async def rates(bench: Bench) -> Metrics:
    """Triton alone and behind the gateway, in turns."""
    rows = []
    async with bench.connections(CLIENTS) as connections:
        through = [partial(image_of_gateway, connection) for connection in connections]
        for _ in range(ROUNDS):
            alone = await images_per_second([bench.image_of_triton] * CLIENTS, bench.seconds)
            rows.append((alone, await images_per_second(through, bench.seconds)))
            print(f"{CLIENTS} clients: Triton {rows[-1][0]:.1f}, through the gateway {rows[-1][1]:.1f} images/s")
    return {
        "clients": CLIENTS,
        "triton": median(alone for alone, _ in rows),
        "gateway": median(behind for _, behind in rows),
        "ratio": median(behind / alone for alone, behind in rows),
    }


async def added_latency(bench: Bench) -> Metrics:
    """Milliseconds of one request after the other, in turns."""
    direct, through = [], []
    async with bench.connections(1) as [connection]:
        for seed in range(LONE_REQUESTS):
            direct.append(await _milliseconds(bench.image_of_triton(seed)))
            through.append(await _milliseconds(image_of_gateway(connection, seed)))
    return {"triton": median(direct), "gateway": median(through), "added": median(through) - median(direct)}


async def _milliseconds(work: Awaitable[object]) -> float:
    begin = time.monotonic()
    await work
    return _MILLISECONDS * (time.monotonic() - begin)


async def rejections(bench: Bench, served_per_second: float) -> Metrics:
    """Far more requests than are served, at even distances, from as many connections as are free."""
    per_second, rows = LOAD * served_per_second, []
    begin = time.monotonic()

    async def send(free: asyncio.Queue[Connection], seed: int) -> None:
        connection = await free.get()
        start = time.monotonic()
        answer = await image_of_gateway(connection, seed)
        rows.append((answer.status, _MILLISECONDS * (time.monotonic() - start)))
        free.put_nowait(connection)

    async with bench.connections(CONNECTIONS) as connections, asyncio.TaskGroup() as group:
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            free.put_nowait(connection)
        for seed in range(round(per_second * bench.seconds)):
            await asyncio.sleep(max(0.0, begin + seed / per_second - time.monotonic()))
            group.create_task(send(free, seed))
        sending = time.monotonic() - begin
    elapsed, statuses = time.monotonic() - begin, Counter(status for status, _ in rows)
    late = sorted(milliseconds for status, milliseconds in rows if status == HTTPStatus.TOO_MANY_REQUESTS)
    return {
        "requests_per_second": len(rows) / sending,
        "statuses": dict(statuses),
        "images_per_second": statuses[HTTPStatus.OK] / elapsed,
        "milliseconds_of_429": {
            "median": median(late),
            "p95": late[len(late) * 95 // 100],
            "p99": late[len(late) * 99 // 100],
            "maximum": late[-1],
        },
    }


async def memory(bench: Bench) -> Metrics:
    """With clients that wait; Triton is stopped meanwhile, so that all do."""
    before = bench.gateway.resident_bytes
    os.kill(bench.triton.pid, signal.SIGSTOP)
    try:
        async with bench.connections(PATIENT) as connections:
            tasks = [
                asyncio.create_task(image_of_gateway(connection, seed)) for seed, connection in enumerate(connections)
            ]
            waiting = partial(bench.gateway.value, "waiting_requests", model="shapes")
            await asyncio.to_thread(wait_until, lambda: waiting() == PATIENT - CONCURRENT)
            during = bench.gateway.resident_bytes
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        os.kill(bench.triton.pid, signal.SIGCONT)
    return {"clients": PATIENT, "mib_before": before / _MIB, "mib": during / _MIB}


@contextmanager
def gateway_before(triton: Server, folder: Path, waiting: int) -> Iterator[GatewayProcess]:
    """A gateway that lets so many requests wait."""
    folder.mkdir()
    limits = ["--concurrent", str(CONCURRENT), "--waiting", str(waiting), "--timeout", str(_SECONDS)]
    with start_gateway(folder, "--pipeline", f"shapes={triton.grpc}", "--auth", "none", *limits) as gateway:
        yield gateway


async def measure(triton: Server, folder: Path, seconds: float) -> Metrics:
    """All metrics."""
    direct = TritonServer(PipelineAddress("shapes", triton.grpc))
    pipeline = await direct.discover()
    with gateway_before(triton, folder / "limited", WAITING) as gateway:
        bench = Bench(triton, gateway, direct, pipeline, seconds)
        served = await rates(bench)
        metrics = {
            "images_per_second": served,
            "milliseconds_of_a_lone_client": await added_latency(bench),
            "rejections": await rejections(bench, served["triton"]),
        }
    with gateway_before(triton, folder / "patient", PATIENT) as gateway:
        metrics["waiting"] = await memory(Bench(triton, gateway, direct, pipeline, seconds))
    await direct.close()
    return metrics


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description="What the gateway costs, and what it does under too much load")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement in each of the rounds")
    parser.add_argument("--out", type=Path, default=OUT, help="file with the metrics")
    options = parser.parse_args()
    machine = {"processors": os.cpu_count(), "load_average_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = build_repository(folder / "store", DEMO)
        with serve(Built(folder / "store", str(results[-1]["digest"])).models) as triton:
            metrics = asyncio.run(measure(triton, folder, options.seconds))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**machine, "steps": STEPS, "rounds": ROUNDS, **metrics}, indent=2) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
