"""How well requests share denoiser calls, and what that is worth against a loop of one request at a time.

Builds the demo checkpoint for the CPU, starts one real Triton, and in one run measures per number of clients: images
per second and the mean batch of `5_denoiser` from Triton's own statistics; then diffusers' Python loop on the same
machine with the same scheduler and steps. Writes out/bench-batching.json.

    python -m benchmarks.batching
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from tests.support.builder.checkpoints import DEMO
from tests.support.builder.reference import Reference
from tests.support.builder.repository import build_repository
from tests.support.triton.client import ImageRequest, counts, send, send_all
from tests.support.triton.tritonserver import serve

STEPS = 20
CLIENTS = (1, 2, 4, 8)
ROUNDS = 7
OUT = Path(__file__).parents[1] / "out" / "bench-batching.json"
Row = dict[str, float]


def image_request(seed: int) -> ImageRequest:
    """One image of 64 x 64 pixels."""
    return ImageRequest(STEPS, ["a red circle on a blue background"], seed=[seed], guidance_scale=[2.0])


def ensemble(http: str, clients: int) -> Row:
    """Send rounds of simultaneous requests; the median round counts."""
    before, moments = counts(http, "5_denoiser"), [time.monotonic()]
    for _ in range(ROUNDS):
        send_all(http, [image_request(seed) for seed in range(clients)])
        moments.append(time.monotonic())
    batch = counts(http, "5_denoiser").since(before).mean_batch
    seconds = median(end - begin for begin, end in pairwise(moments))
    return {"images_per_second": clients / seconds, "mean_batch": batch}


def python_loop() -> Row:
    """diffusers, one request after the other."""
    reference = Reference(DEMO, "DDIM")
    # The cores that the engines get.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    reference.draw(image_request(0))
    moments = [time.monotonic()]
    for seed in range(ROUNDS):
        reference.draw(image_request(seed))
        moments.append(time.monotonic())
    return {"images_per_second": 1 / median(end - begin for begin, end in pairwise(moments))}


def main() -> None:
    """Measure and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        repository = str(build_repository(Path(folder), DEMO)[-1]["digest"])
        with serve(Path(folder, "repositories", repository, "models")) as server:
            send(server.http, image_request(0))
            rows = {str(clients): ensemble(server.http, clients) for clients in CLIENTS}
    result = {"steps": STEPS, "ensemble": rows, "diffusers_loop": python_loop()}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
