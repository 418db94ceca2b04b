"""Images that requests send: what is read, what is rejected, and in which words."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from diffusers.utils import load_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_builder.models import images as module
from diffusion_builder.models.errors import InvalidRequest
from diffusion_builder.models.images import GRAY, RGB, decode, from_pixels, read_image_groups, read_images
from diffusion_builder.models.python_models import INPUT_IMAGE, IP_ADAPTER_IMAGE
from diffusion_builder.models.request_inputs import RequestInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - Pillow's options
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def sent(**inputs: NDArray[Any]) -> Any:  # noqa: ANN401 - a reader of a request
    return inputs.get


def bytes_tensor(*files: bytes) -> NDArray[Any]:
    array = np.empty((len(files), 1), object)
    array[:, 0] = files
    return array


def _oriented() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(_NOISE[..., :3]), "JPEG", exif=exif)


FILES = {
    "png": encoded(Image.fromarray(_NOISE[..., :3])),
    "alpha": encoded(Image.fromarray(_NOISE)),
    "palette": encoded(Image.fromarray(_NOISE[..., :3]).convert("P")),
    "grey": encoded(Image.fromarray(_NOISE[..., 0])),
    "grey with alpha": encoded(Image.fromarray(_NOISE[..., :2], "LA")),
    "one bit": encoded(Image.fromarray(_NOISE[..., 0]).convert("1")),
    "jpeg": encoded(Image.fromarray(_NOISE[..., :3]), "JPEG"),
    "cmyk": encoded(Image.fromarray(_NOISE).convert("CMYK"), "JPEG"),
    "turned by exif": _oriented(),
    "webp": encoded(Image.fromarray(_NOISE), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_as_diffusers_reads_them(name: str, tmp_path: Any) -> None:  # noqa: ANN401 - a path
    file = tmp_path / "image"
    file.write_bytes(FILES[name])
    assert np.array_equal(np.asarray(decode("input_image_file", FILES[name], RGB)), np.asarray(load_image(str(file))))


def test_exif_turns_an_image() -> None:
    assert decode("input_image_file", FILES["turned by exif"], RGB).size == (20, 30)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    shades = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    read = decode("mask_file", encoded(Image.fromarray(shades)), GRAY)
    assert np.array_equal(np.asarray(read).reshape(-1), np.arange(256))


def test_a_camera_s_second_image_is_ignored() -> None:
    first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    file = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.asarray(decode("input_image_file", file, RGB))[0, 0].tolist() == [254, 0, 0]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _bomb(width: int, height: int) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + _chunk(b"IEND", b"")
    )


_FRAMES = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty: send a PNG, JPEG or WebP file"),
        (b"hello", "is not a supported image format"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "is not a supported image format"),
        (encoded(Image.new("RGB", (8, 8)), "TIFF"), "is not a supported image format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a supported image format"),
        (FILES["png"][:-30], "is broken or cut off"),
        (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "is broken or cut off"),
        (FILES["webp"][: len(FILES["webp"]) // 2], "broken or cut off|not a supported image"),
        (FILES["png"][:60] + b"\xff\xff" + FILES["png"][62:], "is broken or cut off"),
        (encoded(_FRAMES[0], "PNG", save_all=True, append_images=_FRAMES[1:]), "animation of 2 frames"),
        (encoded(_FRAMES[0], "WEBP", save_all=True, append_images=_FRAMES[1:]), "animation of 2 frames"),
        (_bomb(4097, 4096), r"4097 x 4096 pixels: send at most 16777216 pixels"),
        (_bomb(12000, 12000), "12000 x 12000 pixels: send at most"),
        (_bomb(100000, 100000), "too large: send at most"),
    ],
    ids=[
        "empty", "text", "gif", "tiff", "svg", "cut png", "cut jpeg", "cut webp", "bad checksum", "animated png",
        "animated webp", "just too large", "bomb that Pillow warns of", "bomb that Pillow rejects",
    ],
)  # fmt: skip
def test_what_is_no_single_whole_image_is_rejected_in_words(data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        decode("input_image_file", data, RGB)
    assert str(caught.value).startswith("input_image_file ")


def test_a_bomb_is_rejected_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 20 * 30 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda _self: pytest.fail("decoded"))
    with pytest.raises(InvalidRequest, match="30 x 20 pixels"):
        decode("mask_file", FILES["png"], GRAY)


@given(
    name=st.sampled_from(["png", "jpeg", "webp", "palette"]), at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=9)
)
def test_broken_bytes_end_in_an_image_or_in_our_error(name: str, at: float, junk: bytes) -> None:
    file = FILES[name]
    begin = int(at * len(file))
    with suppress(InvalidRequest):
        assert decode("mask_file", file[:begin] + junk + file[begin + len(junk) :], GRAY).mode == GRAY


@pytest.mark.parametrize(
    ("shape", "mode", "says"),
    [
        ((8, 8, 4), RGB, r"has the shape \[8, 8, 4\] after the batch: send UINT8 \[B, H, W, 3\]"),
        ((8, 8, 1), RGB, "red, green, blue"),
        ((8, 8), RGB, "send UINT8"),
        ((8, 8, 3), GRAY, r"send UINT8 \[B, H, W\], or the image as an encoded file in mask_file"),
        ((0, 8, 3), RGB, "8 x 0 pixels: send at least one pixel"),
    ],
)
def test_pixels_of_another_shape_are_rejected_with_what_to_send(shape: tuple[int, ...], mode: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        from_pixels("mask", np.zeros(shape, np.uint8), mode)


def test_pixels_and_files_give_the_same_images() -> None:
    pixels = _NOISE[None, ..., :3]
    [one] = read_images(RequestInputs(sent(input_image=pixels), 1), INPUT_IMAGE, RGB) or []
    [other] = read_images(RequestInputs(sent(input_image_file=bytes_tensor(FILES["png"])), 1), INPUT_IMAGE, RGB) or []
    assert np.array_equal(np.asarray(one), np.asarray(other))
    assert np.array_equal(np.asarray(one), pixels[0])
    assert read_images(RequestInputs(sent(), 1), INPUT_IMAGE, RGB) is None


def test_an_image_is_sent_once_and_for_each_sample() -> None:
    pixels, files = _NOISE[None, ..., :3], bytes_tensor(FILES["png"])
    with pytest.raises(InvalidRequest, match="input_image and input_image_file were both sent"):
        read_images(RequestInputs(sent(input_image=pixels, input_image_file=files), 1), INPUT_IMAGE, RGB)
    for read in (sent(input_image=pixels), sent(input_image_file=files)):
        with pytest.raises(InvalidRequest, match="has 1 values for a batch of 2: send one for each sample"):
            read_images(RequestInputs(read, 2), INPUT_IMAGE, RGB)


def test_a_sample_may_refer_to_several_images_but_not_to_any_number() -> None:
    files = np.array([[FILES["png"], FILES["jpeg"]]], object)
    [group] = read_image_groups(RequestInputs(sent(ip_adapter_image_file=files), 1), IP_ADAPTER_IMAGE, 4) or []
    assert [image.size for image in group] == [(30, 20), (30, 20)]
    for count in (0, 5):
        with pytest.raises(InvalidRequest, match="send 1 to 4 images a sample"):
            read_image_groups(
                RequestInputs(sent(ip_adapter_image=np.zeros((1, count, 8, 8, 3), np.uint8)), 1), IP_ADAPTER_IMAGE, 4
            )
