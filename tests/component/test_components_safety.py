"""The safety checker decides as diffusers' does, about the image as bytes, with the resize inside the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessor

from diffusion_contract.enums import Component
from tests.support.builder import parts
from tests.support.builder.loading import load, written

if TYPE_CHECKING:
    from pathlib import Path

_one_thread = pytest.fixture(scope="module", autouse=True)(parts.one_thread)
_Processor: Any = CLIPImageProcessor
_Images: Any = VaeImageProcessor
_UNCLEAR = 0.002


def _images(size: tuple[int, int]) -> torch.Tensor:
    """Soft coloured blobs in [-1, 1], and beyond in places, as a decoder gives them."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.randn(24, 3, 5, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")


@pytest.mark.parametrize("size", [(64, 64), (72, 120), (200, 48), (24, 40)])
@torch.no_grad()
def test_the_decision_is_that_of_diffusers(tmp_path: Path, size: tuple[int, int]) -> None:
    folders = written(tmp_path, {"safety_checker": parts.safety_checker()})
    checker: Any = StableDiffusionSafetyChecker.from_pretrained(folders["safety_checker"])
    edge = parts.IMAGE_SIZE
    processor = _Processor(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
    images = _images(size)
    checker_input = processor(_Images().postprocess(images, output_type="pil"), return_tensors="pt").pixel_values
    _, expected = checker(images=[np.zeros(1)] * len(images), clip_input=checker_input)
    flagged, margin = load(Component.SAFETY_CHECKER, folders).module(images)
    assert ((margin > 0) == (flagged > 0)).all()
    # Pillow resizes with whole numbers, so that a pixel may differ by 2 of 255: too little to change a clear decision.
    clear = margin[:, 0].abs() > _UNCLEAR
    assert clear.sum() >= len(images) - 4
    decisions = {
        (bool(actual), bool(expected_flag))
        for actual, expected_flag in zip(flagged[clear], np.array(expected)[clear], strict=True)
    }
    assert decisions == {(False, False), (True, True)}


@torch.no_grad()
def test_concepts_of_special_care_make_it_stricter(tmp_path: Path) -> None:
    folders = written(tmp_path, {"safety_checker": parts.safety_checker()})
    module: Any = load(Component.SAFETY_CHECKER, folders).module
    _, careful = module(_images((64, 64)))
    module.model.special_care_embeds_weights.fill_(2.0)
    _, plain = module(_images((64, 64)))
    stricter = (careful - plain)[:, 0]
    assert {round(float(value), 4) for value in stricter} == {0.0, 0.01}
