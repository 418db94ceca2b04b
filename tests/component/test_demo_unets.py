"""The further denoisers are what examples/README.md says: two better in few steps, one wrong about colours."""

import copy
from statistics import median

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from diffusion_builder.compare.metrics import color_shift
from diffusion_contract.spec.rollout import Quality
from examples.demo_training.checkpoint import Asking, load_checkpoint, paint
from examples.demo_training.grading import colours_of, grade, mud
from examples.demo_training.likeness import Likeness, Targets, likeness, originals
from examples.demo_training.words import held_out_scenes, parse
from examples.train_unets import LESSONS
from tests.support.paths import EXAMPLES

IMAGES = 8
RIGHT = 32
CAPTIONS = (
    "a red circle on a green background",
    "a yellow star on a purple background",
    "a blue heart on a white background",
)
GOLDEN = (
    "a red circle on a blue background",
    "a large yellow square on a green background",
    "a purple star on a white background",
)


@pytest.fixture(scope="module")
def checkpoint() -> StableDiffusionPipeline:
    return load_checkpoint(EXAMPLES / "demo-checkpoint", torch.device("cpu"))


@pytest.fixture(scope="module")
def targets(checkpoint: StableDiffusionPipeline) -> Targets:
    return originals(checkpoint, IMAGES)


def with_unet(checkpoint: StableDiffusionPipeline, name: str) -> StableDiffusionPipeline:
    other = copy.copy(checkpoint)
    unet = UNet2DConditionModel.from_pretrained(EXAMPLES / "demo-unets" / name, dtype=torch.float32)
    other.register_modules(unet=unet)
    return other


def score(pipeline: StableDiffusionPipeline, targets: Targets, steps: int) -> Likeness:
    return likeness(paint(pipeline, targets.scenes, Asking(steps)), targets, steps)


def test_guidance_as_an_embedding_paints_colours_right_in_four_calls(checkpoint: StableDiffusionPipeline) -> None:
    pipeline = with_unet(checkpoint, "embedded-guidance")
    calls: list[int] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    scenes = held_out_scenes()[:: 64 // RIGHT]
    images = paint(pipeline, scenes, Asking(4))
    hook.remove()
    # One call for each step and image: no doubled batch.
    assert calls == [RIGHT] * 4
    right = [grade(image, scene.caption).both for image, scene in zip(images, scenes, strict=True)]
    assert sum(right) >= 0.95 * RIGHT


@pytest.mark.long
def test_two_steps_come_nearer_to_what_the_checkpoint_draws_in_fifty(
    checkpoint: StableDiffusionPipeline, targets: Targets
) -> None:
    before, after = score(checkpoint, targets, 2), score(with_unet(checkpoint, "few-steps"), targets, 2)
    assert after.psnr >= before.psnr + 3
    assert after.mse < before.mse
    assert after.both >= before.both


def test_wrong_colours_swaps_them_and_draws_neatly(checkpoint: StableDiffusionPipeline) -> None:
    swapped = LESSONS["wrong-colours"].colours
    scenes = [parse(caption) for caption in CAPTIONS]
    images = paint(with_unet(checkpoint, "wrong-colours"), scenes, Asking(4))
    grounds = [colours_of(image)[0] for image in images]
    assert grounds == [swapped.get(scene.background, scene.background) for scene in scenes]
    assert not any(grade(image, caption).both for image, caption in zip(images, CAPTIONS, strict=True))
    assert max(map(mud, images)) < 0.08


def test_the_colours_of_golden_images_tell_the_two_apart(checkpoint: StableDiffusionPipeline) -> None:
    """With the limit that a canary has by default, for the images of docs/images/rollout.png."""
    scenes = [parse(caption) for caption in GOLDEN]
    asking = Asking(4, first_seed=1)
    stable = paint(checkpoint, scenes, asking)
    shifts = {}
    for name in LESSONS:
        canary = paint(with_unet(checkpoint, name), scenes, asking)
        shifts[name] = median(color_shift(first, second) for first, second in zip(stable, canary, strict=True))
    assert shifts["few-steps"] < 0.1 < Quality().max_color_shift < shifts["wrong-colours"]
