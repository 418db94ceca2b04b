"""What Open WebUI sends with its engine `openai`, and what it reads from the answer.

The bodies in tests/recorded/open-webui are those of backend/open_webui/routers/images.py at commit 02530d5, written by
its HTTP client (aiohttp): JSON for new images, a form for edits, whose images are `image` or a list `image[]`.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.gateway.api import EDITS, GENERATIONS, Api, run
from tests.support.paths import ROOT

if TYPE_CHECKING:
    import httpx

RECORDED = ROOT / "tests" / "recorded" / "open-webui"
# Whoever uses it is not told to us; ENABLE_FORWARD_USER_INFO_HEADERS tells it anyway.
USER_HEADERS = {"X-OpenWebUI-User-Name": "Ada", "X-OpenWebUI-User-Email": "ada@example.com"}


async def send(api: Api, path: str, name: str) -> httpx.Response:
    """Send a recorded body."""
    head, _, body = (RECORDED / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    content_type = head.decode().removeprefix("Content-Type: ")
    headers = {"content-type": content_type, **USER_HEADERS}
    # Its setting of an API version is for Azure; nothing depends on it.
    return await api.client.post(f"{path}?api-version=2025-04-01-preview", content=body, headers=headers)


def images_of(answer: httpx.Response) -> list[tuple[str | None, tuple[int, int]]]:
    """Format and size of the images, read as Open WebUI reads them."""
    assert answer.status_code == 200, answer.text
    images = []
    for entry in answer.json()["data"]:
        assert entry.get("url") is None
        with Image.open(io.BytesIO(base64.b64decode(entry["b64_json"], validate=True))) as image:
            images.append((image.format, image.size))
    return images


@pytest.mark.parametrize(("name", "has_size"), [("generation", True), ("generation-auto", False)])
def test_new_images(name: str, *, has_size: bool) -> None:
    async def scene(api: Api) -> None:
        assert [kind for kind, _ in images_of(await send(api, GENERATIONS, name))] == ["PNG"]
        [(request, headers)] = api.triton.requests
        assert request.ensemble == "generate_20_pipeline"
        names = {tensor.name for tensor in request.tensors}
        assert {"width", "height"} <= names if has_size else not {"width", "height"} & names
        assert headers == {}

    run(scene)


@pytest.mark.parametrize(("name", "count"), [("edit", 1), ("edit-list", 2)])
def test_edits(name: str, count: int) -> None:
    async def scene(api: Api) -> None:
        assert [kind for kind, _ in images_of(await send(api, EDITS, name))] == ["PNG"] * count
        [(request, _)] = api.triton.requests
        assert request.ensemble == "img2img_20_pipeline"
        [file] = [tensor for tensor in request.tensors if tensor.name == "input_image_file"]
        assert file.array.shape == (count, 1)

    run(scene)


def test_two_images_at_once_are_refused_by_name() -> None:
    async def scene(api: Api) -> None:
        answer = await send(api, EDITS, "edit-two-images")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "image"
        assert "send one image" in answer.json()["error"]["message"]

    run(scene)
