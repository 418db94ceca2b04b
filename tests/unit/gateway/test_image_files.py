"""Uploaded images: judged by their headers, nothing is decoded; masks are converted."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from diffusion_gateway.errors import ApiError
from diffusion_gateway.image_files import PNG_SIGNATURE, ImageHeader, check_image, read_header
from diffusion_gateway.masks import convert_mask
from tests.support.gateway.pipelines import image_file

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PIXELS = 1 << 20


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join([PNG_SIGNATURE, header, *chunks, _chunk(b"IDAT"), _chunk(b"IEND")])


def _animation() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (image_file(), ImageHeader("png", 64, 48)),
        (image_file("L"), ImageHeader("png", 64, 48)),
        (image_file("RGBA"), ImageHeader("png", 64, 48, has_alpha=True)),
        (image_file("LA"), ImageHeader("png", 64, 48, has_alpha=True)),
        (image_file(file_format="JPEG"), ImageHeader("jpeg", 64, 48)),
        (image_file("CMYK", file_format="JPEG", color=(0, 0, 0, 0)), ImageHeader("jpeg", 64, 48)),
        (image_file(file_format="WEBP"), ImageHeader("webp", 64, 48)),
        (image_file("RGBA", file_format="WEBP", color=(1, 2, 3, 4)), ImageHeader("webp", 64, 48, has_alpha=True)),
        (_animation(), ImageHeader("webp", 8, 8, is_animated=True)),
    ],
)
def test_headers_say_what_pillow_says(content: bytes, header: ImageHeader) -> None:
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format or "").lower() == header.format
        assert image.size == (header.width, header.height)
    assert read_header(content) == (content, header)


def test_lossless_webp() -> None:
    file = io.BytesIO()
    Image.new("RGB", (300, 17)).save(file, "WEBP", lossless=True)
    assert read_header(file.getvalue())[1] == ImageHeader("webp", 300, 17)


def test_progressive_jpeg_with_a_thumbnail_before_the_size() -> None:
    file = io.BytesIO()
    Image.new("RGB", (33, 21)).save(file, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xc0" * 40)
    assert read_header(file.getvalue())[1] == ImageHeader("jpeg", 33, 21)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_png(30_000, 30_000), "30000 x 30000 pixels: send at most 1048576"),
        (_png(2**31 - 1, 2**31 - 1), "send at most"),
        (_png(0, 64), "0 x 64 pixels"),
        (image_file(size=(1025, 1024), file_format="JPEG"), "1025 x 1024 pixels"),
        (_png(8, 8, _chunk(b"acTL", bytes(8))), "is an animation"),
        (_animation(), "is an animation"),
        (b"", "not a PNG, JPEG or WebP file"),
        (b"GIF89a" + bytes(40), "not a PNG, JPEG or WebP file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG, JPEG or WebP file"),
        (image_file()[:20], "broken or cut off"),
        (image_file()[:-20], "broken or cut off"),
        (image_file(file_format="JPEG")[:12], "broken or cut off"),
        (image_file(file_format="WEBP")[:18], "broken or cut off"),
        (PNG_SIGNATURE + _chunk(b"IDAT") + _chunk(b"IEND"), "the first chunk is not the header"),
        (PNG_SIGNATURE + struct.pack(">I4s", 2**32 - 1, b"IHDR"), "a chunk is longer than the file"),
        (_png(8, 8, _chunk(b"tEXt") * 30_000), "more than 20000 chunks"),
        (b"\xff\xd8\xff\xe0\x00\x02none", "a segment does not begin with a marker"),
        (b"\xff\xd8" + b"\xff" * 64, "broken or cut off"),
        (b"RIFF\x10\x00\x00\x00WEBPXMP \x00\x00\x00\x00", "no image data"),
    ],
)
def test_bombs_and_broken_files_are_refused_by_their_headers(content: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        check_image("image", content, MAX_PIXELS)
    assert caught.value.param == "image"


def test_texts_and_profiles_of_a_png_do_not_go_on() -> None:
    file, info = io.BytesIO(), PngInfo()
    info.add_text("bomb", "x" * 900_000, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), "red").save(file, "PNG", pnginfo=info, icc_profile=profile, exif=exif)
    content, _ = check_image("image", file.getvalue(), MAX_PIXELS)
    with Image.open(io.BytesIO(content)) as image:
        assert set(image.info) == {"exif"}
        assert image.getexif()[0x0112] == 6
        assert image.getpixel((0, 0)) == (255, 0, 0)


def _converted(mask: bytes) -> list[int]:
    converted = convert_mask(mask, read_header(mask)[1])
    with Image.open(io.BytesIO(converted)) as image:
        return list(image.convert("L").tobytes())


def _mask(mode: str, pixels: Sequence[int] | Sequence[tuple[int, ...]], file_format: str = "PNG") -> bytes:
    file, image = io.BytesIO(), Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    image.save(file, file_format, lossless=True)
    return file.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_what_is_transparent_in_a_mask_is_repainted(file_format: str) -> None:
    assert _converted(_mask("RGBA", [(255, 0, 0, 0), (0, 0, 0, 255), (9, 9, 9, 155)], file_format)) == [255, 0, 100]


def test_a_mask_without_transparency_goes_on_as_it_is() -> None:
    for mask in (_mask("L", [0, 255]), _mask("RGBA", [(0, 0, 0, 255), (255, 255, 255, 255)])):
        assert convert_mask(mask, read_header(mask)[1]) is mask


def test_a_transparent_color_of_a_palette_counts() -> None:
    file, image = io.BytesIO(), Image.new("P", (2, 1))
    image.putdata([0, 1])
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(file, "PNG", transparency=1)
    assert _converted(file.getvalue()) == [0, 255]


def test_a_mask_with_broken_pixels_is_named() -> None:
    whole = image_file("RGBA", (64, 64), color=(1, 2, 3, 0))
    start = whole.index(b"IDAT") + 4
    mask = whole[:start] + bytes(8) + whole[start + 8 :]
    with pytest.raises(ApiError, match="mask is broken"):
        convert_mask(mask, read_header(mask)[1])
