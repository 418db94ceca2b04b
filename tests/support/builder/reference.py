"""Pictures from diffusers' own pipeline, to compare with."""

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

    from tests.support.triton.client import Ask, Pixels

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

    def draw(self, ask: Ask) -> Pixels:
        """The pictures [B, H, W, 3] that this request should give; seeds and sizes must be in it."""
        assert ask.seed is not None
        assert ask.guidance_scale is not None
        pictures = self._pipe(
            list(ask.prompt),
            negative_prompt=None if ask.negative_prompt is None else list(ask.negative_prompt),
            num_inference_steps=ask.steps,
            guidance_scale=ask.guidance_scale[0],
            height=ask.height[0] if ask.height else 64,
            width=ask.width[0] if ask.width else 64,
            generator=[torch.Generator().manual_seed(seed) for seed in ask.seed],
        ).images
        return np.stack([np.asarray(picture) for picture in pictures])
