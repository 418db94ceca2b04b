"""What people run today on the same GPU: diffusers, eager and with torch.compile. A program of its own.

python -m benchmarks.gpu_torch CHECKPOINT SEEDS OUT [--batches 1,8] [--runs 5] [--warm-up]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch

from benchmarks.gpu_server import GUIDANCE, PROMPT, SIDE, STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def pipeline(checkpoint: Path) -> Any:  # noqa: ANN401 - the library has no types
    """The checkpoint in half precision on the GPU, without progress bars."""
    library: Any = diffusers
    pipe = library.StableDiffusionPipeline.from_pretrained(checkpoint, torch_dtype=torch.float16, safety_checker=None)
    pipe = pipe.to("cuda")
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def call(pipe: Any, seeds: Sequence[int]) -> Any:  # noqa: ANN401 - the library has no types
    """Images of these seeds, from the latents that the product draws: in float32 on the CPU."""
    shape = (1, pipe.unet.config.in_channels, SIDE // pipe.vae_scale_factor, SIDE // pipe.vae_scale_factor)
    latents = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return pipe(
        [PROMPT] * len(seeds), height=SIDE, width=SIDE, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        latents=torch.cat(latents).half().cuda(),
    ).images  # fmt: skip


def timed(pipe: Any, batch: int, runs: int) -> float:  # noqa: ANN401 - the library has no types
    """Milliseconds of one call, median; the first two are not counted."""
    times = []
    for run in range(runs + 2):
        torch.cuda.synchronize()
        began = time.monotonic()
        call(pipe, range(run * batch, (run + 1) * batch))
        torch.cuda.synchronize()
        times.append(1000 * (time.monotonic() - began))
    return median(times[2:])


def references(pipe: Any, seeds: Sequence[int]) -> NDArray[np.uint8]:  # noqa: ANN401 - the library has no types
    """[N, H, W, 3] as pixels."""
    return np.stack([np.asarray(call(pipe, [seed])[0], np.uint8) for seed in seeds])


def main() -> None:
    """Write images of the seeds, and milliseconds by batch size, eager and compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("seeds", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm-up", action="store_true", help="only fill torch.compile's cache")
    given = parser.parse_args()
    batches = [int(text) for text in given.batches.split(",")]
    pipe = pipeline(given.checkpoint)
    figures: dict[str, Any] = {"eager": {}, "compile": {}, "compile_seconds": {}}
    if not given.warm_up:
        np.save(given.out / "reference.npy", references(pipe, range(given.seeds)))
        figures["eager"] = {batch: timed(pipe, batch, given.runs) for batch in batches}
    pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead")
    for batch in batches:
        began = time.monotonic()
        call(pipe, range(batch))
        figures["compile_seconds"][batch] = time.monotonic() - began
        if not given.warm_up:
            figures["compile"][batch] = timed(pipe, batch, given.runs)
    if not given.warm_up:
        (given.out / "torch.json").write_text(json.dumps({**figures, "torch": torch.__version__}, indent=2) + "\n")


if __name__ == "__main__":
    main()
