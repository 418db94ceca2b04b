"""What Triton draws is what diffusers draws."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.builder.parts import one_thread
from tests.support.builder.reference import Reference
from tests.support.triton.client import ImageRequest, answer, inputs, psnr, send

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.triton.tritonserver import Server

_threads = pytest.fixture(autouse=True, scope="module")(one_thread)
_SCHEDULERS = ("DDIM", "Euler")
_MIN_PSNR = 35.0
_PROMPT = ["a red circle on a blue background"]


@pytest.fixture(scope="module")
def references(checkpoint: Path) -> dict[str, Reference]:
    return {name: Reference(checkpoint, name) for name in _SCHEDULERS}


@pytest.fixture(scope="module")
def servers(ddim: Server, euler: Server) -> dict[str, Server]:
    return {"DDIM": ddim, "Euler": euler}


@pytest.mark.parametrize("scheduler", _SCHEDULERS)
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(
    "tierless_request",
    [
        ImageRequest(0, _PROMPT, ["a green square"], [7], [7.5], [64], [64]),
        ImageRequest(0, _PROMPT, None, [2**32 + 5], [3.0], [96], [128]),
        ImageRequest(0, _PROMPT, ["a green square"], [-3], [1.0], [72], [64]),
    ],
)
def test_image_equals_diffusers(
    scheduler: str,
    steps: int,
    tierless_request: ImageRequest,
    servers: dict[str, Server],
    references: dict[str, Reference],
) -> None:
    tier = replace(tierless_request, steps=steps)
    assert psnr(send(servers[scheduler].http, tier), references[scheduler].draw(tier)) >= _MIN_PSNR


def test_defaults_are_seed_0_guidance_7_5_empty_negative_prompt_and_the_usual_size(
    ddim: Server, references: dict[str, Reference]
) -> None:
    explicit = ImageRequest(4, ["a blue star"], seed=[0], guidance_scale=[7.5])
    assert psnr(send(ddim.http, ImageRequest(4, ["a blue star"])), references["DDIM"].draw(explicit)) >= _MIN_PSNR


def test_png_holds_the_same_pixels(ddim: Server) -> None:
    response = answer(
        ddim.http, "generate_4_pipeline", inputs(ImageRequest(4, ["a blue star", "a red star"], seed=[1, 2]))
    )
    files = response.as_numpy("encoded_image")
    assert files.shape == (2, 1)
    for pixels, file in zip(response.as_numpy("image"), files[:, 0], strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels)
