"""The finished checkpoint: written, read back, and measured as a user would."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from numpy.typing import NDArray
from transformers import CLIPTokenizer

from .denoiser import Models, make_scheduler
from .grading import grade
from .tokenizer import save_tokenizer
from .words import Scene, held_out_scenes

# The highest that still paints four-step images right; from 20 steps on, anything up to 5 does.
GUIDANCE = 2.0
AT_ONCE = 64


@dataclass(frozen=True)
class Asking:
    """How images are asked for: denoising steps, guidance scale, side in pixels, seed of the first image."""

    steps: int
    guidance: float = GUIDANCE
    side: int = 64
    first_seed: int = 0


@dataclass(frozen=True)
class Score:
    """Fractions of images whose background, shape colour, and both are right."""

    background: float
    colour: float
    both: float


def write_checkpoint(models: Models, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a `StableDiffusionPipeline` with float16 weights, replacing the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=models.text.half(),
        tokenizer=tokenizer,
        unet=models.unet.half(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    save_tokenizer(tokenizer, folder / "tokenizer")
    for config in folder.glob("*/config.json"):
        settings = json.loads(config.read_text())
        # Where the part was read from is this machine's business.
        settings.pop("_name_or_path", None)
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def load_checkpoint(folder: Path, device: torch.device) -> StableDiffusionPipeline:
    """Read a checkpoint back in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(pipeline: StableDiffusionPipeline, scenes: list[Scene], asking: Asking) -> NDArray[np.uint8]:
    """One image for each scene, seeds counting up; uint8 [N, side, side, 3]."""
    images = []
    for first in range(0, len(scenes), AT_ONCE):
        part = scenes[first : first + AT_ONCE]
        seeds = range(asking.first_seed + first, asking.first_seed + first + len(part))
        images.append(
            pipeline(
                [scene.caption for scene in part],
                num_inference_steps=asking.steps,
                guidance_scale=asking.guidance,
                height=asking.side,
                width=asking.side,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="np",
            ).images
        )
    levels: NDArray[np.uint8] = np.round(np.concatenate(images) * 255).astype(np.uint8)
    return levels


def measure(pipeline: StableDiffusionPipeline, asking: Asking) -> Score:
    """The share of the 64 held-out captions that is painted right."""
    scenes = held_out_scenes()
    images = paint(pipeline, scenes, asking)
    verdicts = [grade(image, scene.caption) for image, scene in zip(images, scenes, strict=True)]
    rows = [(verdict.background, verdict.colour, verdict.both) for verdict in verdicts]
    return Score(*(float(column) for column in np.mean(rows, axis=0)))
