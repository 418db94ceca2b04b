"""What one operator process costs with a fleet of pipelines, on a real API server (no nodes, no controllers).

The fleet is made as an operator of another version would have left it: every pipeline served, with another serving
image. Jobs and pods are played by this program: it writes the status that Kubernetes' controllers and the builder
would write. Measured: resident memory, one look at every pipeline after a restart, requests that change something while
nothing happens, the time from a changed spec to its first Job, and how long new pipelines that come at once wait for
theirs. Beside times, the processor time of the operator: it depends less on what else the machine does.
Writes out/bench-operator.json.

    python -m benchmarks.operator [--pipelines 1000] [--steady-seconds 600] [--burst 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from diffusion_operator import naming
from diffusion_operator.api import KIND
from diffusion_operator.kube_client import MERGE, KubeClient, Reference, connect
from tests.support.cluster.operator_process import operator_process
from tests.support.operator.fleet import (
    ControllerClient,
    Fleet,
    claim,
    create,
    pipeline,
    revision,
    simulate_controllers,
)
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "bench-operator.json"
CRD = ROOT / "crds" / "diffusionpipelines.yaml"
SETTLE_SECONDS = 3600.0
CHANGES = 25
POLL_SECONDS = 0.02
BURST, BURST_POLL_SECONDS = "burst", 0.25
PARALLEL = 16


@dataclass(frozen=True)
class Operator:
    """A running operator process."""

    pid: int
    metrics_port: int

    def rss_mib(self, field: str = "VmRSS") -> float:
        """Resident memory now, or its largest value so far (VmHWM), MiB."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(rf"{field}:\s+(\d+) kB", text)
        return round(int(match[1]) / 1024, 1) if match else 0.0

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, series: str) -> float:
        """Sum of a series over all labels; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
                lines = response.read().decode().splitlines()
        except OSError:
            return 0.0
        names = tuple(f"diffusion_operator_{series}{end}" for end in ("{", " "))
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names))


@contextmanager
def operator(server: ApiServer, log: Path, resync_seconds: float) -> Iterator[Operator]:
    """Run the operator as an ordinary user until the block ends."""
    settings = {"RESYNC_SECONDS": resync_seconds, "IDENTITY": "bench"}
    with operator_process(server, log, **settings) as (process, metrics):
        yield Operator(process.pid, metrics)


async def settle(cluster: ControllerClient, fleet: Fleet, running: Operator) -> float:
    """Play the controllers until every pipeline is ready; returns seconds."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_SECONDS:
        updates = await simulate_controllers(cluster, fleet)
        ready, queued = running.metric('pipelines{ready="True"}'), running.metric("queue_length")
        print(f"[{time.monotonic() - began:6.0f} s] {ready:.0f} ready, {queued:.0f} queued, {updates} objects updated")
        if ready == fleet.pipelines and queued == 0:
            return time.monotonic() - began
        await asyncio.sleep(1)
    raise TimeoutError(f"not every pipeline is ready after {SETTLE_SECONDS:.0f} s")


def writes(server: ApiServer) -> float:
    """Requests that change something, on the kinds that the operator writes, as the API server counts them."""
    command = [str(server.kubectl), "--kubeconfig", str(server.kubeconfig), "get", "--raw", "/metrics"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = (line for line in text.splitlines() if line.startswith("apiserver_request_total{"))
    changing = re.compile(r'verb="(APPLY|PATCH|POST|PUT|DELETE|DELETECOLLECTION)"')
    groups = "batch|apps|policy|autoscaling|diffusion-operator.io|keda.sh"
    written_kinds = re.compile(rf'group="({groups})"|resource="(services|events|persistentvolumeclaims)"')
    return sum(float(line.rpartition(" ")[2]) for line in lines if changing.search(line) and written_kinds.search(line))


async def resync(fleet: Fleet, running: Operator) -> float:
    """Seconds until a new process has looked at every pipeline."""
    began = time.monotonic()
    while running.metric("reconcile_duration_seconds_count") < fleet.pipelines or running.metric("queue_length") > 0:
        await asyncio.sleep(1)  # An answer has lines for every pipeline, which costs the operator time.
        if time.monotonic() - began > SETTLE_SECONDS:
            raise TimeoutError("the operator does not look at every pipeline")
    return time.monotonic() - began


async def first_jobs(cluster: KubeClient, fleet: Fleet) -> list[float]:
    """Seconds from a changed spec to its fetch Job, one pipeline after the other."""
    seconds = []
    for number in range(min(CHANGES, fleet.pipelines)):
        target = fleet.reference(number)
        selector = f"{naming.needed_by_label(target.name)},{naming.STAGE}=fetch"
        before = await _names(cluster, target, selector)
        source = {"huggingFace": {"revision": revision(1000 + number)}}
        began = time.monotonic()
        await cluster.patch(target, {"spec": {"model": {"source": source}}}, MERGE)
        await _appears(cluster, target, selector, before)
        seconds.append(time.monotonic() - began)
    return seconds


async def burst(cluster: ControllerClient, count: int) -> tuple[float, float]:
    """New pipelines that come at once, each with a checkpoint of its own; 0 for none.

    Returns:
        Seconds in which they were created, and from the first request until each had its first Job.
    """
    await cluster.make_namespace(BURST)
    await cluster.create(claim(BURST))
    limit, began = asyncio.Semaphore(PARALLEL), time.monotonic()

    async def make(number: int) -> None:
        async with limit:
            await cluster.create(pipeline(Reference(KIND, BURST, f"new-{number}"), revision(5000 + number)))

    await asyncio.gather(*map(make, range(count)))
    created = time.monotonic() - began
    selector = f"{naming.MANAGED_SELECTOR},{naming.STAGE}=fetch"
    while len((await cluster.select_metadata(Reference("Job", BURST), selector))[1]) < count:
        await _pause(BURST_POLL_SECONDS)
    return round(created, 1), round(time.monotonic() - began, 1)


async def _appears(cluster: KubeClient, target: Reference, selector: str, before: set[str]) -> None:
    while not await _names(cluster, target, selector) - before:
        await _pause(POLL_SECONDS)


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _names(cluster: KubeClient, target: Reference, selector: str) -> set[str]:
    return {item["metadata"]["name"] for item in await cluster.select(_jobs(target), selector)}


def _jobs(target: Reference) -> Reference:
    return Reference("Job", target.namespace)


@dataclass(frozen=True)
class Benchmark:
    """One run.

    Attributes:
        steady_seconds: in which nothing happens.
        burst: new pipelines that come at once.
        log: file of the operator's output.
    """

    server: ApiServer
    fleet: Fleet
    steady_seconds: float
    burst: int
    log: Path

    async def measure(self) -> dict[str, float]:
        """All numbers."""
        async with connect(str(self.server.kubeconfig)) as connection:
            cluster = ControllerClient.of(connection)
            began = time.monotonic()
            await create(cluster, self.fleet)
            while await simulate_controllers(cluster, self.fleet):
                pass
            print(f"{self.fleet.pipelines} pipelines are made in {time.monotonic() - began:.0f} s")
            numbers = await self._adopt(cluster)
            jobs = [len(await cluster.select(Reference("Job", name), "")) for name in self.fleet.all_namespaces()]
            numbers |= {"pipelines": self.fleet.pipelines, "namespaces": self.fleet.namespaces, "jobs": sum(jobs)}
            return numbers | await self._restart(cluster)

    async def _adopt(self, cluster: ControllerClient) -> dict[str, float]:
        """The first start."""
        with operator(self.server, self.log, 300) as running:
            seconds = await settle(cluster, self.fleet, running)
            return {
                "adopt_seconds": round(seconds, 1),
                "adopt_cpu_seconds": running.cpu_seconds(),
                "adopt_passes": running.metric("reconcile_duration_seconds_count"),
                "adopt_load_average": round(os.getloadavg()[0], 1),
                "rss_adopting_mib": running.rss_mib("VmHWM"),
            }

    async def _restart(self, cluster: ControllerClient) -> dict[str, float]:
        """The next start, quiet time, and changes."""
        with operator(self.server, self.log, 300) as running:
            numbers = {
                "resync_seconds": round(await resync(self.fleet, running), 1),
                "resync_cpu_seconds": running.cpu_seconds(),
            }
            print(f"{numbers}; now nothing happens for {self.steady_seconds:.0f} s")
            before, cpu = writes(self.server), running.cpu_seconds()
            await asyncio.sleep(self.steady_seconds)
            steady, cpu = writes(self.server) - before, running.cpu_seconds() - cpu
            numbers |= {
                "steady_seconds": self.steady_seconds,
                "steady_state_writes": steady,
                "steady_cpu_fraction": round(cpu / self.steady_seconds, 3) if self.steady_seconds else 0.0,
                "rss_mib": running.rss_mib("VmHWM"),
            }
            seconds, cpu = await first_jobs(cluster, self.fleet), running.cpu_seconds()
            created, all_started = await burst(cluster, self.burst)
            return numbers | {
                "first_job_seconds_p50": round(median(seconds), 3),
                "first_job_seconds_max": round(max(seconds), 3),
                "burst": self.burst,
                "burst_created_seconds": created,
                "burst_first_jobs_seconds": all_started,
                "burst_cpu_seconds": round(running.cpu_seconds() - cpu, 2),
                "load_average": round(os.getloadavg()[0], 1),
            }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=20)
    parser.add_argument("--steady-seconds", type=float, default=600.0)
    parser.add_argument("--burst", type=int, default=300)
    arguments = parser.parse_args()
    fleet = Fleet(arguments.pipelines, arguments.namespaces)
    with api_server() as server, tempfile.TemporaryDirectory() as folder:
        server.apply(CRD)
        log = Path(folder, "operator.log")
        try:
            benchmark = Benchmark(server, fleet, arguments.steady_seconds, arguments.burst, log)
            numbers = asyncio.run(benchmark.measure())
        except BaseException:
            print(log.read_text(errors="replace")[-4000:] if log.exists() else "")
            raise
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(numbers, indent=2) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
