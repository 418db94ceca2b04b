"""The demo checkpoint paints what it is told: measured with diffusers in float32 on the CPU, fixed seeds."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from examples.demo_training.checkpoint import Asking, load_checkpoint, measure, paint
from examples.demo_training.grading import grade
from examples.demo_training.painter import Painter
from examples.demo_training.words import every_scene, held_out_scenes
from tests.support.paths import ROOT

FOLDER = ROOT / "examples" / "demo-checkpoint"
ALLOWED = {".safetensors", ".json", ".txt", ".png"}


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return load_checkpoint(FOLDER, torch.device("cpu"))


@pytest.mark.parametrize("steps", [4, *(pytest.param(steps, marks=pytest.mark.long) for steps in (20, 50))])
def test_of_64_held_out_captions_95_percent_are_painted_right(pipeline: StableDiffusionPipeline, steps: int) -> None:
    assert measure(pipeline, Asking(steps)).both >= 0.95


@pytest.mark.parametrize(
    "asking",
    [
        pytest.param(Asking(20, guidance=4.0), id="guidance 4"),
        pytest.param(Asking(20, side=128), id="128 pixels", marks=pytest.mark.long),
    ],
)
def test_a_higher_guidance_and_larger_images_are_right_too(pipeline: StableDiffusionPipeline, asking: Asking) -> None:
    """16 of the 64 captions, two of each shape, for the sake of time."""
    scenes = held_out_scenes()[::4]
    images = paint(pipeline, scenes, asking)
    right = [grade(image, scene.caption).both for image, scene in zip(images, scenes, strict=True)]
    assert images.shape == (16, asking.side, asking.side, 3)
    assert np.mean(right) >= 0.9


def test_the_seed_decides_the_image(pipeline: StableDiffusionPipeline) -> None:
    scenes = held_out_scenes()[:1]
    first, again, other = (paint(pipeline, scenes, Asking(4, first_seed=seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_checkpoint_is_small_and_holds_nothing_executable() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20e6
    assert {path.suffix for path in files} <= ALLOWED


def test_no_optional_component_is_required() -> None:
    index = json.loads((FOLDER / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == index["feature_extractor"] == index["image_encoder"] == [None, None]


def test_every_word_of_the_captions_is_one_token_and_every_caption_fits() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    captions = [scene.caption for scene in every_scene()]
    lengths = [len(tokens) for tokens in tokenizer(captions).input_ids]
    assert lengths == [len(caption.split()) + 2 for caption in captions]
    assert max(lengths) <= tokenizer.model_max_length


def test_the_classic_vocabulary_files_say_the_same_as_tokenizer_json() -> None:
    classic = [json.loads((FOLDER / "tokenizer" / "vocab.json").read_text())]
    classic += [[line.split() for line in (FOLDER / "tokenizer" / "merges.txt").read_text().splitlines()[1:]]]
    model = json.loads((FOLDER / "tokenizer" / "tokenizer.json").read_text())["model"]
    assert classic == [model["vocab"], model["merges"]]


def test_training_never_paints_a_held_out_combination() -> None:
    torch.manual_seed(0)
    captions = Painter(torch.device("cpu")).paint(4096, 16, 16).captions
    scenes = list(every_scene())
    painted = {(s.shape, s.colour, s.background) for s in (scenes[index] for index in captions.tolist())}
    held_out = {(s.shape, s.colour, s.background) for s in held_out_scenes()}
    assert not painted & held_out
    assert len(painted) == 8 * 8 * 7 - len(held_out)


def test_a_drawn_image_shows_its_caption() -> None:
    torch.manual_seed(0)
    batch = Painter(torch.device("cpu")).paint(256, 64, 64)
    scenes = list(every_scene())
    pixels = ((batch.pixels.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    captions = [scenes[index].caption for index in batch.captions.tolist()]
    assert all(grade(image, caption).both for image, caption in zip(pixels, captions, strict=True))
