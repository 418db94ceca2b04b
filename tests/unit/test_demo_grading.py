"""Grading of demo images: right when the image is right, wrong when it isn't."""

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.demo_training.grading import Verdict, colours_of, grade, mud, overlap
from examples.demo_training.shapes import draw
from examples.demo_training.words import COLOURS, SHAPES, Scene, held_out_scenes, parse

SIDES = (64, 128)
RIGHT = Verdict(background=True, colour=True)
RED_ON_BLUE = Scene("circle", "red", "blue")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_held_out_combination_drawn_right_is_judged_right(shape: str, side: int) -> None:
    scenes = [scene for scene in held_out_scenes() if scene.shape == shape]
    assert [grade(draw(scene, side), scene.caption) for scene in scenes] == [RIGHT] * len(COLOURS)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_smallest_shape_in_a_corner_is_found(shape: str) -> None:
    scene = Scene(shape, "yellow", "purple")
    assert grade(draw(scene, 64, radius=0.16, centre=(0.18, 0.82)), scene.caption).both


def test_a_wrong_shape_colour_is_wrong_and_the_background_still_right() -> None:
    image = draw(Scene("star", "orange", "blue"), 64)
    assert grade(image, "a red star on a blue background") == Verdict(background=True, colour=False)


def test_a_wrong_background_is_wrong_and_the_shape_still_right() -> None:
    image = draw(Scene("star", "red", "purple"), 64)
    assert grade(image, "a red star on a blue background") == Verdict(background=False, colour=True)


def test_swapped_colours_are_both_wrong() -> None:
    image = draw(Scene("ring", "blue", "red"), 64)
    assert grade(image, "a red ring on a blue background") == Verdict(background=False, colour=False)


def test_an_empty_image_has_no_shape() -> None:
    image = np.full((64, 64, 3), COLOURS["blue"], dtype=np.uint8)
    assert colours_of(image) == ("blue", None)


def test_specks_are_not_a_shape() -> None:
    image = np.full((64, 64, 3), COLOURS["blue"], dtype=np.uint8)
    image[8:60:8, 8:60:8] = COLOURS["red"]
    assert colours_of(image) == ("blue", None)


def test_the_largest_region_counts_not_the_first() -> None:
    image = draw(RED_ON_BLUE, 64, radius=0.25, centre=(0.6, 0.6))
    image[6:12, 6:12] = COLOURS["white"]
    assert grade(image, RED_ON_BLUE.caption).both


def test_mud_has_no_name() -> None:
    image = np.full((64, 64, 3), 128, dtype=np.uint8)
    image[20:44, 20:44] = (60, 120, 140)
    assert colours_of(image) == (None, None)


def test_noise_is_not_right_by_luck() -> None:
    scenes = held_out_scenes()
    noise = np.random.default_rng(0).integers(0, 256, (len(scenes), 64, 64, 3)).astype(np.uint8)
    verdicts = [grade(image, scene.caption) for image, scene in zip(noise, scenes, strict=True)]
    assert not any(verdict.both for verdict in verdicts)


def test_a_noisy_right_image_stays_right() -> None:
    grain = np.random.default_rng(1).normal(0, 12, (64, 64, 3))
    image = np.clip(draw(RED_ON_BLUE, 64) + grain, 0, 255).astype(np.uint8)
    assert grade(image, RED_ON_BLUE.caption).both


def test_images_need_not_be_square() -> None:
    image = np.concatenate([draw(RED_ON_BLUE, 64), np.full((64, 32, 3), COLOURS["blue"], dtype=np.uint8)], axis=1)
    assert grade(image, RED_ON_BLUE.caption).both


@pytest.mark.parametrize(
    "image",
    [np.zeros((64, 64, 3)), np.zeros((64, 64), dtype=np.uint8), np.zeros((1, 64, 64, 3), dtype=np.uint8)],
    ids=["float", "grey", "batch"],
)
def test_what_is_not_an_image_is_rejected(image: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match=r"an image is uint8 \[H, W, 3\]"):
        grade(image, RED_ON_BLUE.caption)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scene",
    [RED_ON_BLUE, Scene("star", "white", "black", "large"), Scene("ring", "green", "red", "small", "at the top left")],
)
def test_a_caption_can_be_read_back(scene: Scene) -> None:
    assert parse(scene.caption) == scene


@pytest.mark.parametrize(
    "caption",
    ["", "a red circle", "a red dog on a blue background", "a pink star on a red background", "red circle on a blue"],
)
def test_another_language_is_rejected(caption: str) -> None:
    with pytest.raises(ValueError, match="not a caption of the demo checkpoint"):
        grade(draw(RED_ON_BLUE, 64), caption)


def test_held_out_combinations_leave_every_pair_to_training() -> None:
    held_out = {(scene.shape, scene.colour, scene.background) for scene in held_out_scenes()}
    trained = {(s, c, b) for s in SHAPES for c in COLOURS for b in COLOURS if c != b} - held_out
    assert len(held_out) == 64
    assert all(colour != background for _, colour, background in held_out)
    for first, second, pairs in ((0, 1, 64), (0, 2, 64), (1, 2, 56)):
        assert len({(scene[first], scene[second]) for scene in trained}) == pairs


def test_overlap_is_one_for_the_silhouette_itself_and_small_for_another_place() -> None:
    image = draw(RED_ON_BLUE, 64, radius=0.2, centre=(0.3, 0.3))
    there, elsewhere = (
        draw(Scene("circle", "white", "black"), 64, radius=0.2, centre=centre)[:, :, 0] > 127
        for centre in ((0.3, 0.3), (0.7, 0.7))
    )
    assert overlap(image, there) > 0.95
    assert overlap(image, elsewhere) < 0.05


def test_a_sharp_image_has_little_mud_and_a_blurred_one_more() -> None:
    sharp = draw(RED_ON_BLUE, 64)
    blurred = sharp.astype(np.float64)
    for _ in range(8):
        blurred = (blurred + np.roll(blurred, 1, 0) + np.roll(blurred, 1, 1) + np.roll(blurred, (1, 1), (0, 1))) / 4
    assert mud(sharp) < 0.03
    assert mud(blurred.astype(np.uint8)) > 2 * mud(sharp)
    assert mud(draw(Scene("circle", "red", "red"), 64)) == 1.0
