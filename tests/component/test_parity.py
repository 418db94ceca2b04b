"""What Triton draws is what diffusers draws."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.component.client import Ask, answer, inputs, psnr, send
from tests.component.reference import Reference
from tests.component.tritonserver import Server

_SCHEDULERS = ("DDIM", "Euler")
_MIN_PSNR = 35.0


@pytest.fixture(scope="module")
def references(checkpoint: Path) -> dict[str, Reference]:
    return {name: Reference(checkpoint, name) for name in _SCHEDULERS}


@pytest.fixture(scope="module")
def servers(ddim: Server, euler: Server) -> dict[str, Server]:
    return {"DDIM": ddim, "Euler": euler}


@pytest.mark.parametrize("scheduler", _SCHEDULERS)
@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(
    ("height", "width", "seed", "guidance"), [(64, 64, 7, 7.5), (96, 128, 2**32 + 5, 3.0), (72, 64, -3, 1.0)]
)
def test_picture_equals_diffusers(
    scheduler: str,
    steps: int,
    height: int,
    width: int,
    seed: int,
    guidance: float,
    servers: dict[str, Server],
    references: dict[str, Reference],
) -> None:
    ask = Ask(
        steps, ["a red circle on a blue background"], ["a green square"], [seed], [guidance], [height], [width]
    )  # fmt: skip
    picture = send(servers[scheduler].http, ask)
    assert picture.shape == (1, height, width, 3)
    assert psnr(picture, references[scheduler].draw(ask)) >= _MIN_PSNR


def test_defaults_are_seed_0_guidance_7_5_empty_negative_prompt_and_the_usual_size(
    ddim: Server, references: dict[str, Reference]
) -> None:
    said = Ask(4, ["a blue star"], seed=[0], guidance_scale=[7.5])
    assert psnr(send(ddim.http, Ask(4, ["a blue star"])), references["DDIM"].draw(said)) >= _MIN_PSNR


def test_png_holds_the_same_pixels(ddim: Server) -> None:
    response = answer(ddim.http, "generate_4_pipeline", inputs(Ask(4, ["a blue star", "a red star"], seed=[1, 2])))
    files = response.as_numpy("encoded_image")
    assert files.shape == (2, 1)
    for pixels, file in zip(response.as_numpy("image"), files[:, 0], strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels)
