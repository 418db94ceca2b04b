"""What one operator process costs with a fleet of pipelines, on a real API server (no nodes, no controllers).

The fleet is made as an operator would have left it, every pipeline served. Jobs and pods are played by this program:
it writes the status that Kubernetes' controllers and the builder would write.
Measured: resident memory, one look at every pipeline after a restart, requests that change something while nothing
happens, and the time from a changed spec to its first Job. Writes out/bench-operator.json.

    python -m benchmarks.operator [--pipelines 1000] [--steady-seconds 600]
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
from diffusion_operator.kube_client import MERGE, KubeClient, Reference, connect
from tests.support.cluster.operator_process import operator_process
from tests.support.operator.fleet import ControllerClient, Fleet, create, revision, simulate_controllers
from tools.devcluster.bare import ApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "bench-operator.json"
CRD = ROOT / "crds" / "diffusionpipelines.yaml"
SETTLE_SECONDS = 3600.0
CHANGES = 25
POLL_SECONDS = 0.02


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
        await asyncio.sleep(0.25)
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


async def _appears(cluster: KubeClient, target: Reference, selector: str, before: set[str]) -> None:
    while not await _names(cluster, target, selector) - before:
        await _pause()


async def _pause() -> None:
    await asyncio.sleep(POLL_SECONDS)


async def _names(cluster: KubeClient, target: Reference, selector: str) -> set[str]:
    return {item["metadata"]["name"] for item in await cluster.select(_jobs(target), selector)}


def _jobs(target: Reference) -> Reference:
    return Reference("Job", target.namespace)


async def measure(server: ApiServer, fleet: Fleet, steady_seconds: float, log: Path) -> dict[str, float]:
    """All numbers."""
    async with connect(str(server.kubeconfig)) as connection:
        cluster = ControllerClient.of(connection)
        began = time.monotonic()
        await create(cluster, fleet)
        print(f"{fleet.pipelines} pipelines are made in {time.monotonic() - began:.0f} s")
        with operator(server, log, 300) as running:
            build = await settle(cluster, fleet, running)
            building_rss = running.rss_mib("VmHWM")
        with operator(server, log, 300) as running:
            looked = await resync(fleet, running)
            print(
                f"every pipeline was looked at again in {looked:.0f} s; now nothing happens for {steady_seconds:.0f} s"
            )
            before, cpu = writes(server), running.cpu_seconds()
            await asyncio.sleep(steady_seconds)
            steady, cpu = writes(server) - before, running.cpu_seconds() - cpu
            rss = running.rss_mib("VmHWM")
            seconds = await first_jobs(cluster, fleet)
            jobs = [len(await cluster.select(Reference("Job", name), "")) for name in fleet.all_namespaces()]
        return {
            "pipelines": fleet.pipelines,
            "namespaces": fleet.namespaces,
            "jobs": sum(jobs),
            "rss_mib": rss,
            "rss_adopting_mib": building_rss,
            "adopt_seconds": round(build, 1),
            "resync_seconds": round(looked, 1),
            "steady_seconds": steady_seconds,
            "steady_state_writes": steady,
            "steady_cpu_fraction": round(cpu / steady_seconds, 3) if steady_seconds else 0.0,
            "first_job_seconds_p50": round(median(seconds), 3),
            "first_job_seconds_max": round(max(seconds), 3),
        }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=20)
    parser.add_argument("--steady-seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    fleet = Fleet(arguments.pipelines, arguments.namespaces)
    with api_server() as server, tempfile.TemporaryDirectory() as folder:
        server.apply(CRD)
        log = Path(folder, "operator.log")
        try:
            numbers = asyncio.run(measure(server, fleet, arguments.steady_seconds, log))
        except BaseException:
            print(log.read_text(errors="replace")[-4000:] if log.exists() else "")
            raise
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(numbers, indent=2) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
