"""How well a denoiser paints in few steps what the demo checkpoint paints in many, from the same captions and seeds."""

from dataclasses import asdict, dataclass

import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from .checkpoint import Asking, paint
from .grading import grade, mud
from .words import Scene, held_out_scenes

STEPS = 50
MEASURED = (2, 4, 20)


@dataclass(frozen=True)
class Targets:
    """Held-out scenes and how the checkpoint paints them in `STEPS` steps, uint8 [N, 64, 64, 3]."""

    scenes: list[Scene]
    images: NDArray[np.uint8]


@dataclass(frozen=True)
class Likeness:
    """Means over all images.

    Args:
        steps: denoising steps.
        both: fraction whose two colours are right.
        mud: fraction of pixels that are neither of the two colours.
        psnr: of each image to its target, in dB, averaged.
        mse: mean square error to the targets, in squared levels of 0..255.
    """

    steps: int
    both: float
    mud: float
    psnr: float
    mse: float


def originals(pipeline: StableDiffusionPipeline, count: int) -> Targets:
    """What the checkpoint itself paints; all held-out captions in turn, seeds counting up."""
    held_out = held_out_scenes()
    scenes = [held_out[index % len(held_out)] for index in range(count)]
    return Targets(scenes, paint(pipeline, scenes, Asking(STEPS)))


def scores(pipeline: StableDiffusionPipeline, targets: Targets) -> list[dict[str, float]]:
    """Paint the targets' captions at every number of steps and compare."""
    return [asdict(likeness(paint(pipeline, targets.scenes, Asking(steps)), targets, steps)) for steps in MEASURED]


def likeness(images: NDArray[np.uint8], targets: Targets, steps: int) -> Likeness:
    """Compare images with the targets, one by one."""
    errors = np.square(images.astype(np.float64) - targets.images).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / np.maximum(errors, 1e-3))
    right = [grade(image, scene.caption).both for image, scene in zip(images, targets.scenes, strict=True)]
    muddy = [mud(image) for image in images]
    means = (float(np.mean(right)), float(np.mean(muddy)), float(psnr.mean()), float(errors.mean()))
    return Likeness(steps, *(round(value, 4) for value in means))
