"""What accelerations cost: images of diffusers with the same calls, beside those without.

16 held-out captions of the demo checkpoint, two of each shape, one image each, 20 steps of its own scheduler,
guidance 2, float32 on the CPU. For each acceleration: PSNR of the worst and of the median image against the one
without, and the share of the images that show what their caption says. The builder's stage `parity` compares the
product with the same reference. Prints a table.

    python -m benchmarks.acceleration [--steps N]
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.builder import DEMO
from diffusion_builder.compare.metrics import psnr
from diffusion_builder.parity.accelerated import accelerated
from diffusion_contract.spec import Acceleration
from examples.demo_training.checkpoint import Asking, load_checkpoint, paint
from examples.demo_training.grading import grade
from examples.demo_training.words import held_out_scenes

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from numpy.typing import NDArray

    from examples.demo_training.words import Scene

_DEEP_CACHE = ((2, 0), (2, 1), (3, 0), (3, 1), (5, 0), (5, 1), (10, 0))
CASES: tuple[dict[str, Any], ...] = (
    {},
    *({"deepCache": {"interval": interval, "branch": branch}} for interval, branch in _DEEP_CACHE),
    *({"guidance": {"stop": stop}} for stop in (0.8, 0.6, 0.4)),
    {"deepCache": {"interval": 3, "branch": 0}, "guidance": {"stop": 0.6}},
)


def scenes() -> list[Scene]:
    """What is asked for."""
    return held_out_scenes()[::4]


def images(pipeline: StableDiffusionPipeline, acceleration: Acceleration, steps: int) -> NDArray[np.uint8]:
    """One image for each caption, [N, H, W, 3]."""
    with accelerated(pipeline.unet, acceleration, steps):
        return paint(pipeline, scenes(), Asking(steps))


def row(images: NDArray[np.uint8], without: NDArray[np.uint8]) -> str:
    """Worst and median PSNR, and the share of images that are right."""
    ratios = [psnr(*pair) for pair in zip(images, without, strict=True)]
    right = [grade(image, scene.caption).both for image, scene in zip(images, scenes(), strict=True)]
    return f"{min(ratios):>8.1f}{median(ratios):>8.1f}{100 * float(np.mean(right)):>8.1f}"


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    pipeline = load_checkpoint(DEMO, torch.device("cpu"))
    without = images(pipeline, Acceleration(), steps)
    print(f"{'acceleration, ' + str(steps) + ' steps':<64}{'worst':>8}{'median':>8}{'right %':>8}")
    for case in CASES:
        accelerated_images = images(pipeline, Acceleration.model_validate(case), steps)
        print(f"{json.dumps(case):<64}{row(accelerated_images, without)}", flush=True)


if __name__ == "__main__":
    main()
