"""Bodies: JSON and forms, and the tricks that are played with them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.datastructures import Headers

from diffusion_gateway.bodies import RequestBody, parse_body
from diffusion_gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = b"an image"
TEXT = base64.b64encode(IMAGE).decode()
BOUNDARY = "boundary"


def parse(content: bytes, content_type: str = "application/json", **headers: str) -> RequestBody:
    all_headers = Headers({"content-type": content_type, **headers})
    return asyncio.run(parse_body(all_headers, bytearray(content), 1000))


def parse_json(body: Any) -> RequestBody:  # noqa: ANN401 - any JSON
    return parse(json.dumps(body).encode())


def part(name: str, content: bytes | str, filename: str = "") -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    body = content.encode() if isinstance(content, str) else content
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + body + b"\r\n"


def parse_form(*parts: bytes, boundary: str = BOUNDARY, end: bytes = b"--boundary--\r\n") -> RequestBody:
    return parse(b"".join([*parts, end]), f"multipart/form-data; boundary={boundary}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", TEXT),
        ("image", f"data:image/png;base64,{TEXT}"),
        ("image[]", [TEXT]),
        ("images", [{"image_url": f"data:image/png;base64,{TEXT}"}]),
    ],
)
def test_images_in_json(name: str, value: object) -> None:
    assert parse_json({"prompt": "x", name: value}) == RequestBody({"prompt": "x"}, {"image": (IMAGE,)})


def test_an_image_of_null_is_none() -> None:
    assert parse_json({"prompt": "x", "mask": None}) == RequestBody({"prompt": "x"}, {})


def test_a_form_with_files() -> None:
    body = parse_form(
        part("prompt", "a réd star"), part("n", "2"), part("image[]", IMAGE, "a.png"), part("mask", IMAGE, "m.png"),
        part("control_image_canny", f"data:image/png;base64,{TEXT}"),
    )  # fmt: skip
    assert body.values == {"prompt": "a réd star", "n": "2"}
    assert body.files == {"image": (IMAGE,), "mask": (IMAGE,), "control_image_canny": (IMAGE,)}


def test_bytes_of_files_are_not_changed() -> None:
    content = bytes(range(256)) * 40 + b"\r\n--bound\r\n--boundar"
    assert parse_form(part("image", content, "a.png")).files == {"image": (content,)}


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://example.com/image.png",
        "HTTP://localhost:8000/",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://127.0.0.1:6379/_",
        "data:image/png,plain",
        "s3:bucket/key",
    ],
)
@pytest.mark.parametrize("name", ["image", "mask", "control_image_canny", "ip_adapter_image"])
def test_a_url_is_refused_and_never_fetched(name: str, url: str) -> None:
    bodies: list[Callable[[], RequestBody]] = [
        lambda: parse_json({name: url}),
        lambda: parse_json({name: [{"image_url": url}]}),
        lambda: parse_form(part(name, url)),
    ]
    for read in bodies:
        with pytest.raises(ApiError, match=f"{name} is a URL, which is not fetched") as caught:
            read()
        assert caught.value.param == name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"seed": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"image": 7}', "image is not an image"),
        (b'{"image": {"file_id": "file-1"}}', "image is not an image"),
        (b'{"image": "not base64!"}', "image is not base64"),
    ],
)
def test_broken_json(content: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        parse(content)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([part("prompt", "a"), part("prompt", "b")], "prompt was sent twice"),
        ([part("file", IMAGE, "a.png")], "file is not supported"),
        ([part("prompt", IMAGE, "a.txt")], "prompt is not supported"),
        ([part("prompt", "x" * 1001)], "exceeded maximum size"),
        ([part("image", IMAGE, "a.png")] * 17, "Too many files"),
        ([part(f"field{number}", "x") for number in range(65)], "Too many fields"),
        ([b"--boundary\r\nContent-Disposition: form-data\r\n\r\nx\r\n"], "must be provided"),
        ([b"--boundary\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n"], "the form is broken"),
        ([b"--boundary\r\n" + b"X-Long: " + b"y" * 100_000 + b"\r\n\r\nx\r\n"], "the form is broken"),
        ([b"no boundary at all"], "the form is broken"),
    ],
)
def test_tricks_with_forms(parts: list[bytes], says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        parse_form(*parts)
    assert caught.value.status == 400


def test_boundaries() -> None:
    with pytest.raises(ApiError, match="boundary is longer"):
        parse_form(part("prompt", "x"), boundary="b" * 201)
    with pytest.raises(ApiError, match="Missing boundary"):
        parse(b"", "multipart/form-data")


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        ("text/plain", {}),
        ("", {}),
        ("application/x-www-form-urlencoded", {}),
        ("application/json", {"content-encoding": "gzip"}),
        ("application/json", {"content-encoding": "identity, br"}),
    ],
)
def test_other_types_and_compressed_bodies_are_refused(content_type: str, headers: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        parse(b"{}", content_type, **headers)
    assert caught.value.status == 415
