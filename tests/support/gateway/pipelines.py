"""Pipelines and images for the gateway's tests."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image

from diffusion_contract.python_models import (
    BLEND_MASK,
    CONTRAST,
    ENCODED_IMAGE,
    FLAGGED,
    GUIDANCE_SCALE,
    HEIGHT,
    INPUT_IMAGE,
    MASK,
    NEGATIVE_PROMPT,
    OUTPUT_FORMAT,
    PASTE_BACK,
    PROMPT,
    QUALITY,
    SCHEDULER,
    SEED,
    STRENGTH,
    UPSCALE_WIDTH,
    WIDTH,
    control_image,
    control_scale,
)
from diffusion_gateway.ensembles import Ensemble, Pipeline, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusion_contract.tensors import Tensor

_CORE = (
    PROMPT, NEGATIVE_PROMPT, SEED, GUIDANCE_SCALE, HEIGHT, WIDTH, SCHEDULER, CONTRAST, UPSCALE_WIDTH, OUTPUT_FORMAT,
    QUALITY,
)  # fmt: skip
_OF_TASK: dict[str, tuple[Tensor, ...]] = {
    "generate": (),
    "img2img": (STRENGTH, *INPUT_IMAGE, PASTE_BACK, *BLEND_MASK),
    "inpaint": (STRENGTH, *INPUT_IMAGE, *MASK, PASTE_BACK, *BLEND_MASK),
}


def ensemble(name: str, previews: Sequence[int] = (), control_nets: Sequence[str] = ()) -> Ensemble:
    """An ensemble with the inputs of its task, of at most 8 images."""
    tensors = [*_CORE, *_OF_TASK[name.split("_", maxsplit=1)[0]]]
    tensors += [tensor for net in control_nets for tensor in (*control_image(net), control_scale(net))]
    outputs = [ENCODED_IMAGE.name, *(f"preview_{calls}" for calls in previews)]
    return describe(name, {tensor.name: tensor.dtype for tensor in tensors}, outputs, 8)


def shapes_pipeline(*, is_checked: bool = False) -> Pipeline:
    """Three tasks, tiers of 4, 20 and 50 steps, one with a ControlNet, one of Heun; maybe a safety checker."""
    ensembles = _ensembles()
    if is_checked:
        ensembles = tuple(replace(item, outputs=(*item.outputs, FLAGGED.name)) for item in ensembles)
    return Pipeline("shapes", ensembles)


def _ensembles() -> tuple[Ensemble, ...]:
    return (
        ensemble("generate_4_pipeline", previews=[2]),
        ensemble("generate_20_pipeline", previews=[2, 5, 10, 15]),
        ensemble("generate_50_pipeline"),
        ensemble("generate_20_heun_pipeline"),
        ensemble("generate_controlnet_20_pipeline", control_nets=["canny"]),
        ensemble("img2img_4_pipeline"),
        ensemble("img2img_20_pipeline"),
        ensemble("inpaint_20_pipeline"),
    )


def image_file(
    mode: str = "RGB", size: tuple[int, int] = (64, 48), file_format: str = "PNG", color: object = 0
) -> bytes:
    """An image file of one color."""
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, file_format)  # type: ignore[arg-type]
    return file.getvalue()
