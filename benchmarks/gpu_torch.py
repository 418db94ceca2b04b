"""What people run today on the same GPU: diffusers, eager and with torch.compile. A program of its own.

python -m benchmarks.gpu_torch CHECKPOINT SEEDS OUT [--family sd1] [--side N] [--batches 1,8] [--runs 5] [--warm-up]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch

from benchmarks.gpu_cases import CASES
from benchmarks.gpu_server import PROMPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.gpu_cases import Case


def pipeline(checkpoint: Path, case: Case) -> Any:  # noqa: ANN401 - the library has no types
    """The checkpoint in half precision on the GPU, without progress bars."""
    library: Any = diffusers
    pipe = getattr(library, case.pipeline).from_pretrained(checkpoint, torch_dtype=torch.float16)
    pipe = pipe.to("cuda")
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def call(pipe: Any, case: Case, seeds: Sequence[int]) -> Any:  # noqa: ANN401 - the library has no types
    """Images of these seeds, from the latents that the product draws: in float32 on the CPU."""
    shape = (1, pipe.unet.config.in_channels, case.side // pipe.vae_scale_factor, case.side // pipe.vae_scale_factor)
    latents = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return pipe(
        [PROMPT] * len(seeds), height=case.side, width=case.side,
        num_inference_steps=case.steps, guidance_scale=case.guidance,
        latents=torch.cat(latents).half().cuda(),
    ).images  # fmt: skip


def timed(pipe: Any, case: Case, batch: int, runs: int) -> float:  # noqa: ANN401 - the library has no types
    """Milliseconds of one call, median; the first two are not counted."""
    times = []
    for run in range(runs + 2):
        torch.cuda.synchronize()
        began = time.monotonic()
        call(pipe, case, range(run * batch, (run + 1) * batch))
        torch.cuda.synchronize()
        times.append(1000 * (time.monotonic() - began))
    return median(times[2:])


def references(pipe: Any, case: Case, seeds: Sequence[int]) -> NDArray[np.uint8]:  # noqa: ANN401 - the library has no types
    """[N, H, W, 3] as pixels."""
    return np.stack([np.asarray(call(pipe, case, [seed])[0], np.uint8) for seed in seeds])


def main() -> None:
    """Write images of the seeds, and milliseconds by batch size, eager and compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("seeds", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", choices=CASES, default="sd1")
    parser.add_argument("--side", type=int, help="pixels of an edge (default: the family's)")
    parser.add_argument("--batches", help="batch sizes (default: 1 and the family's largest)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm-up", action="store_true", help="only fill torch.compile's cache")
    given = parser.parse_args()
    case = CASES[given.family]
    case = replace(case, side=given.side or case.side)
    batches = [int(text) for text in given.batches.split(",")] if given.batches else [1, case.max_batch]
    pipe = pipeline(given.checkpoint, case)
    figures: dict[str, Any] = {"eager": {}, "compile": {}, "compile_seconds": {}}
    if not given.warm_up:
        np.save(given.out / "reference.npy", references(pipe, case, range(given.seeds)))
        figures["eager"] = {batch: timed(pipe, case, batch, given.runs) for batch in batches}
    pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead")
    for batch in batches:
        began = time.monotonic()
        call(pipe, case, range(batch))
        figures["compile_seconds"][batch] = time.monotonic() - began
        if not given.warm_up:
            figures["compile"][batch] = timed(pipe, case, batch, given.runs)
    if not given.warm_up:
        (given.out / "torch.json").write_text(json.dumps({**figures, "torch": torch.__version__}, indent=2) + "\n")


if __name__ == "__main__":
    main()
