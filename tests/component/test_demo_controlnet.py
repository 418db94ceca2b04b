"""The demo ControlNet is obeyed: measured with diffusers in float32 on the CPU, fixed seeds."""

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

from examples.demo_training.checkpoint import load_checkpoint
from examples.demo_training.control import controlled, obedience
from tests.support.paths import EXAMPLES


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionControlNetPipeline:
    controlnet = ControlNetModel.from_pretrained(EXAMPLES / "demo-controlnet", torch_dtype=torch.float32)
    return controlled(load_checkpoint(EXAMPLES / "demo-checkpoint", torch.device("cpu")), controlnet)


@pytest.mark.filterwarnings("ignore:.*torch_dtype.*is deprecated")
@pytest.mark.long
@pytest.mark.parametrize(("side", "least"), [(64, 0.75), (128, 0.9)])
def test_images_follow_the_silhouette_and_keep_the_prompts_colours(
    pipeline: StableDiffusionControlNetPipeline, side: int, least: float
) -> None:
    obedience_ratios = obedience(pipeline, side, 1.0, count=8)
    assert obedience_ratios.overlap >= least
    assert obedience_ratios.colours == 1.0


@pytest.mark.long
def test_without_control_the_silhouette_is_missed(pipeline: StableDiffusionControlNetPipeline) -> None:
    """Or the test above would say nothing about the ControlNet."""
    assert obedience(pipeline, 64, 0.0, count=8).overlap < 0.4
