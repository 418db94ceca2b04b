"""A Triton with its TensorRT backend, and clients that load it: what `benchmarks.gpu` measures of the product."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import median
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import tritonclient.http as triton

from tests.support.triton.client import tensor
from tests.support.triton.closed_loop import Countdown, images_between
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.gpu_cases import Case

PROMPT = "a red circle on a blue background"
DENOISER = "5_denoiser"
_READY_SECONDS = 240.0
_REQUEST_SECONDS = 120.0
_TIMES = ("queue", "compute_input", "compute_infer", "compute_output")
# Of one model: how often it ran, for how many samples, and nanoseconds by what they were spent on.
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Load:
    """What clients that send one request after the other got, while all of them were sending.

    Args:
        clients: how many.
        images_per_second: images made in the measured time; of a request that began before it or ended after it, the
            part that lies in it.
        ms: median time of a request.
        mean_batch: samples in a call of the denoiser.
        per_model_ms: of one image, the time that each model took by Triton's statistics, all its calls together.
    """

    clients: int
    images_per_second: float
    ms: float
    mean_batch: float
    per_model_ms: Mapping[str, Mapping[str, float]]


@contextmanager
def serving(program: str, models: Path, flags: Sequence[str], log: Path) -> Iterator[str]:
    """Run a server until the block ends.

    Args:
        program: tritonserver.
        models: the repository.
        flags: that the repository asks for.
        log: what the server prints.

    Yields:
        Its HTTP address.

    Raises:
        SystemExit: it does not become ready.
    """
    (port,) = free_ports(1)
    command = [
        program, f"--model-repository={models}", "--model-control-mode=none", "--disable-auto-complete-config",
        "--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false", *flags,
    ]  # fmt: skip
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    try:
        _wait_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/v2/health/ready", timeout=5) as response:  # noqa: S310 - our own server
                if response.status == 200:  # noqa: PLR2004 - OK
                    return
        except (URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"tritonserver is not ready:\n{log.read_text(errors='replace')[-4000:]}")


def image(client: Any, case: Case, seed: int) -> NDArray[np.uint8]:  # noqa: ANN401 - tritonclient has no types
    """One image [H, W, 3] as pixels."""
    tensors = [
        tensor("prompt", "BYTES", np.array([[PROMPT.encode()]], object)),
        tensor("seed", "INT64", np.array([[seed]], np.int64)),
        tensor("guidance_scale", "FP32", np.array([[case.guidance]], np.float32)),
    ]
    answer = client.infer(case.model, tensors, outputs=[triton.InferRequestedOutput("image")])
    pixels: NDArray[np.uint8] = answer.as_numpy("image")[0]
    return pixels


def images(address: str, case: Case, seeds: Sequence[int]) -> NDArray[np.uint8]:
    """One image per seed, [N, H, W, 3]."""
    with closing(triton.InferenceServerClient(address, network_timeout=_REQUEST_SECONDS)) as client:
        return np.stack([image(client, case, seed) for seed in seeds])


def load(address: str, case: Case, clients: int, seconds: float) -> Load:
    """Let clients send one request after the other, and measure between every client's first answer and the end.

    Args:
        address: of the server.
        case: what they ask for.
        clients: how many.
        seconds: that are measured.
    """
    stop, all_answered = Event(), Countdown(clients)
    with ThreadPoolExecutor(clients) as pool:
        try:
            futures = [pool.submit(_request_until, address, case, stop, all_answered) for _ in range(clients)]
            all_answered.wait(_REQUEST_SECONDS)
            began, before = time.monotonic(), counts(address)
            time.sleep(seconds)
            ended, after = time.monotonic(), counts(address)
        finally:
            stop.set()
        requests = [request for future in futures for request in future.result()]
    spent = _difference(after, before)
    denoiser = spent[DENOISER]
    images_made = images_between(requests, began, ended)
    return Load(
        clients,
        images_made / (ended - began),
        1000 * median(end - begin for begin, end in requests if began <= end <= ended),
        denoiser["samples"] / max(denoiser["calls"], 1),
        {
            name: {time: model[time] / 1e6 / images_made for time in _TIMES}
            for name, model in spent.items()
            if model["calls"]
        },
    )


def _request_until(address: str, case: Case, stop: Event, all_answered: Countdown) -> list[tuple[float, float]]:
    """When each request was sent and answered, of one client."""
    requests: list[tuple[float, float]] = []
    with closing(triton.InferenceServerClient(address, network_timeout=_REQUEST_SECONDS)) as client:
        while not stop.is_set():
            began = time.monotonic()
            image(client, case, seed=len(requests))
            requests.append((began, time.monotonic()))
            if len(requests) == 1:
                all_answered.count()
    return requests


def counts(address: str) -> Counts:
    """What Triton has counted so far, by model."""
    with closing(triton.InferenceServerClient(address)) as client:
        statistics = client.get_inference_statistics()["model_stats"]
    return {
        item["name"]: {
            "calls": int(item["execution_count"]),
            "samples": int(item["inference_count"]),
            # Of a batch Triton adds its times once for each request in it; so these sums are what requests waited.
            **{name: int(item["inference_stats"].get(name, {}).get("ns", 0)) for name in _TIMES},
        }
        for item in statistics
    }


def _difference(after: Counts, before: Counts) -> Counts:
    return {
        name: {key: value - before.get(name, {}).get(key, 0) for key, value in item.items()}
        for name, item in after.items()
    }
