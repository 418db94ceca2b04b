"""Images from diffusers' own pipeline, to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.triton.client import ImageRequest, Pixels

_SCHEDULERS: dict[str, Any] = {
    "DDIM": DDIMScheduler,
    "Euler": EulerDiscreteScheduler,
    "Heun": HeunDiscreteScheduler,
    "PNDM": PNDMScheduler,
    "DPMSolverMultistep": DPMSolverMultistepScheduler,
    "DEISMultistep": DEISMultistepScheduler,
    "UniPCMultistep": UniPCMultistepScheduler,
}
# Runge-Kutta steps are what a checkpoint for this pipeline never means.
_SETTINGS: dict[str, dict[str, Any]] = {"PNDM": {"skip_prk_steps": True}}


class Reference:
    """diffusers with one scheduler, in float32 on the CPU."""

    def __init__(self, checkpoint: Path, scheduler: str) -> None:
        # The library has no types.
        library: Any = StableDiffusionPipeline
        self._pipe = library.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
        self._pipe.scheduler = _SCHEDULERS[scheduler].from_config(
            self._pipe.scheduler.config, **_SETTINGS.get(scheduler, {})
        )
        self._pipe.set_progress_bar_config(disable=True)

    def draw(self, request: ImageRequest) -> Pixels:
        """The images [B, H, W, 3] that this request should give; seeds and sizes must be in it."""
        assert request.seed is not None
        assert request.guidance_scale is not None
        images = self._pipe(
            list(request.prompt),
            negative_prompt=None if request.negative_prompt is None else list(request.negative_prompt),
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale[0],
            height=request.height[0] if request.height else 64,
            width=request.width[0] if request.width else 64,
            generator=[torch.Generator().manual_seed(seed) for seed in request.seed],
        ).images
        return np.stack([np.asarray(image) for image in images])
