"""What is output to images after the model, step by step and in its order."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from diffusion_builder.models.errors import InvalidRequest
from diffusion_builder.models.postprocess import PostprocessOptions, encode, postprocess, read_options
from diffusion_builder.models.request_inputs import ReadTensor, RequestInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RANDOM = np.random.default_rng(5)
_NEW, _ORIGINAL = (Image.fromarray(_RANDOM.integers(0, 256, (64, 96, 3), np.uint8)) for _ in range(2))


def _options(read: ReadTensor, batch: int) -> list[PostprocessOptions]:
    return read_options(RequestInputs(read, batch))


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def left_half(width: int = 96, height: int = 64) -> Image.Image:
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return Image.fromarray(mask)


def test_who_asks_for_nothing_gets_every_bit_as_the_model_made_it() -> None:
    [nothing] = _options(lambda _name: None, 1)
    assert nothing == PostprocessOptions()
    assert np.array_equal(pixels(postprocess(_NEW, nothing)), pixels(_NEW))


def test_paste_back_keeps_the_original_outside_the_mask_bit_for_bit() -> None:
    output = pixels(
        postprocess(_NEW, PostprocessOptions(_ORIGINAL, left_half(), paste_back=True, contrast=1.5, sharpen=1.0))
    )
    enhanced = pixels(postprocess(_NEW, PostprocessOptions(contrast=1.5, sharpen=1.0)))
    assert np.array_equal(output[:, 48:], pixels(_ORIGINAL)[:, 48:])
    assert np.array_equal(output[:, :48], enhanced[:, :48])


def test_blend_mask_keeps_the_original_inside() -> None:
    output = pixels(postprocess(_NEW, PostprocessOptions(_ORIGINAL, blend_mask=left_half())))
    assert np.array_equal(output[:, :48], pixels(_ORIGINAL)[:, :48])
    assert np.array_equal(output[:, 48:], pixels(_NEW)[:, 48:])


def test_both_masks_together_leave_only_what_is_new_in_both() -> None:
    upper = np.zeros((64, 96), np.uint8)
    upper[:32] = 255
    output = pixels(
        postprocess(_NEW, PostprocessOptions(_ORIGINAL, left_half(), Image.fromarray(upper), paste_back=True))
    )
    new = np.zeros((64, 96), bool)
    new[32:, :48] = True
    assert np.array_equal(output, np.where(new[..., None], pixels(_NEW), pixels(_ORIGINAL)))


def test_feather_mixes_near_the_edge_only() -> None:
    black, white = (Image.new("RGB", (96, 64), color) for color in ("black", "white"))
    row = pixels(postprocess(white, PostprocessOptions(black, left_half(), paste_back=True, feather=4.0)))[32, :, 0]
    assert (np.diff(row) <= 0).all()
    assert (row[:30] == 255).all()
    assert (row[66:] == 0).all()
    assert 100 < row[48] < 155


def test_soft_masks_mix() -> None:
    black, white = (Image.new("RGB", (8, 8), color) for color in ("black", "white"))
    output = postprocess(white, PostprocessOptions(black, Image.new("L", (8, 8), 51), paste_back=True))
    assert np.array_equal(pixels(output), np.full((8, 8, 3), 51))


def _tinted() -> tuple[Image.Image, Image.Image]:
    """An image, and what a model with a colour cast made of it; its left half is new."""
    plain = _RANDOM.integers(80, 160, (64, 96, 3)).astype(np.float64)
    cast = (plain - 128) * [0.8, 1.0, 1.2] + 128 + [12, -8, 20]
    return Image.fromarray(plain.astype(np.uint8)), Image.fromarray(cast.round().astype(np.uint8))


def test_color_match_undoes_a_cast_that_shows_around_the_mask() -> None:
    original, cast = _tinted()
    errors = {
        strength: np.abs(
            pixels(postprocess(cast, PostprocessOptions(original, left_half(), color_match=strength)))
            - pixels(original)
        )
        for strength in (0.0, 0.5, 1.0)
    }
    assert errors[0.0].mean() > 8
    assert errors[0.5].mean() == pytest.approx(errors[0.0].mean() / 2, abs=0.5)
    # Inside the mask, where nothing was compared.
    assert errors[1.0][:, :48].mean() < 1
    assert errors[1.0].max() <= 3


def test_color_match_compares_only_near_the_border() -> None:
    original, cast = _tinted()
    far = pixels(original)
    far[:, 80:] = 0
    changed = Image.fromarray(far.astype(np.uint8))
    one, other = (
        postprocess(cast, PostprocessOptions(image, left_half(), color_match=1.0)) for image in (original, changed)
    )
    assert np.array_equal(pixels(one), pixels(other))


def test_color_match_without_masks_compares_the_whole_images() -> None:
    original, cast = _tinted()
    assert (
        np.abs(pixels(postprocess(cast, PostprocessOptions(original, color_match=1.0))) - pixels(original)).mean() < 1
    )


def test_color_match_with_nothing_around_the_mask_changes_nothing() -> None:
    everything = Image.new("L", _NEW.size, 255)
    output = postprocess(_NEW, PostprocessOptions(_ORIGINAL, everything, color_match=1.0))
    assert np.array_equal(pixels(output), pixels(_NEW))


def test_contrast_comes_before_the_unsharp_mask_and_both_are_pillow_s() -> None:
    expected = ImageEnhance.Contrast(_NEW).enhance(1.25).filter(ImageFilter.UnsharpMask(2.0, 80, threshold=0))
    assert np.array_equal(pixels(postprocess(_NEW, PostprocessOptions(contrast=1.25, sharpen=0.8))), pixels(expected))


def test_upscaling_is_lanczos_and_keeps_proportions_when_one_side_is_sent() -> None:
    expected = _NEW.resize((192, 128), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels(postprocess(_NEW, PostprocessOptions(height=128, width=192))), pixels(expected))
    assert postprocess(_NEW, PostprocessOptions(height=128)).size == (192, 128)
    assert postprocess(_NEW, PostprocessOptions(width=48)).size == (48, 32)


def test_what_is_kept_of_a_large_original_keeps_its_resolution() -> None:
    large = Image.fromarray(_RANDOM.integers(0, 256, (256, 384, 3), np.uint8))
    output = postprocess(_NEW, PostprocessOptions(large, left_half(), paste_back=True, height=256, width=384))
    assert np.array_equal(pixels(output)[:, 200:], pixels(large)[:, 200:])


def test_a_side_that_follows_may_not_be_too_large() -> None:
    with pytest.raises(InvalidRequest, match="upscaling gives 6144 x 4096 pixels"):
        postprocess(_NEW, PostprocessOptions(height=4096))


@pytest.mark.parametrize("verdict", [1.0, float("nan")])
def test_a_flagged_image_is_black_whatever_else_is_asked_for(verdict: float) -> None:
    read = {
        "safety_flag": np.array([[verdict], [0.0]], np.float32),
        "input_image": np.stack([np.asarray(_ORIGINAL)] * 2),
        "blend_mask": np.full((2, 64, 96), 255, np.uint8),
        "upscale_height": np.array([[128], [128]], np.int32),
    }
    first, second = (postprocess(_NEW, finish) for finish in _options(read.get, 2))
    assert first.size == second.size == (192, 128)
    assert not pixels(first).any()
    assert pixels(second).any()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_files_have_the_format_that_is_asked_for(file_format: str) -> None:
    smooth = _NEW.resize((4, 4)).resize((64, 64), Image.Resampling.BICUBIC)
    read = {"output_format": np.array([[file_format.lower().encode()]], object)}
    [finish] = _options(read.get, 1)
    files = [encode(smooth, finish.file_format, quality) for quality in (5, 95)]
    opened = [Image.open(io.BytesIO(file)) for file in files]
    assert [image.format for image in opened] == [file_format] * 2
    errors = [np.abs(pixels(image) - pixels(smooth)).mean() for image in opened]
    assert errors == [0, 0] if file_format == "PNG" else errors[1] < errors[0] < 30


_ONE = {"input_image": np.asarray(_ORIGINAL)[None]}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"contrast": [[4.5]]}, "contrast 4.5 is not supported: send 0 to 4"),
        ({"contrast": [[float("nan")]]}, "contrast nan is not supported"),
        ({"sharpen": [[float("inf")]]}, "sharpen inf is not supported: send 0 to 5"),
        ({"color_match": [[1.1]]}, "color_match 1.1 is not supported: send 0 to 1"),
        ({"blend_feather": [[-1.0]]}, "blend_feather -1 is not supported: send 0 to 256"),
        ({"quality": [[0]]}, "quality 0 is not supported: send 1 to 100"),
        ({"upscale_height": [[8192]]}, "upscale_height 8192 is not supported: send 16 to 4096"),
        ({"upscale_width": [[0]]}, "upscale_width 0 is not supported"),
        ({"contrast": [[1.0], [1.0]]}, "contrast has 2 values for a batch of 1"),
        ({"output_format": np.array([[b"GIF"]], object)}, "output_format 'GIF' is not supported: send PNG, JPEG, WEBP"),
        ({"output_format": np.array([[b"\xff"]], object)}, "output_format is not UTF-8"),
        ({"paste_back": [[True]]}, "paste_back needs the input image: send input_image"),
        ({"blend_mask": np.zeros((1, 8, 8), np.uint8)}, "blend_mask needs the input image"),
        ({"color_match": [[0.5]]}, "color_match needs the input image"),
        ({"paste_back": [[True]], **_ONE}, "paste_back needs to know where the image was repainted: send mask"),
        ({"color_match": [[0.5]], "input_image": np.zeros((1, 8, 8, 4), np.uint8)}, "send UINT8"),
    ],
)
def test_what_cannot_be_done_is_rejected_with_what_to_send(inputs: dict[str, Any], says: str) -> None:
    read = {name: np.asarray(value) for name, value in inputs.items()}
    with pytest.raises(InvalidRequest, match=says):
        _options(read.get, 1)


def test_an_original_that_nothing_is_kept_of_is_not_even_decoded() -> None:
    names: list[str] = []
    _options(names.append, 1)
    assert not {"input_image", "input_image_file", "mask", "mask_file"} & set(names)


def test_all_images_of_a_request_have_one_size() -> None:
    with pytest.raises(InvalidRequest, match="upscale_width differs within one request"):
        _options({"upscale_width": np.array([[64], [128]])}.get, 2)
