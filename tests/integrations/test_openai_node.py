"""The official OpenAI client for Node.js, unchanged, at a gateway in front of real Triton with the demo checkpoint."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from diffusion_gateway.keys import digest_of
from tests.support.builder.checkpoints import DEMO
from tests.support.builder.repository import Built, build_repository
from tests.support.gateway.pipelines import image_file
from tests.support.gateway.running import start_gateway
from tests.support.integrations.node import Call, make_calls
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-node-test"
PROMPT = "a red circle on a blue background"
PIPELINES = [
    {"task": "generate", "steps": [4, 20], "previews": [2, 10]},
    {"task": "img2img", "steps": [4]},
    {"task": "inpaint", "steps": [4]},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("node")
    store, keys = folder / "store", folder / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "team", "sha256": digest_of(KEY)}]}))
    digest = str(build_repository(store, DEMO, pipelines=PIPELINES)[-1]["digest"])
    with (
        serve(Built(store, digest).models) as triton,
        start_gateway(folder, "--pipeline", f"shapes={triton.grpc}", "--keys", str(keys)) as gateway,
    ):
        yield f"{gateway.url}/v1"


def outcome(url: str, call: Call, key: str = KEY) -> dict[str, Any]:
    [outcome] = make_calls(url, key, [call])
    return outcome


def sizes(images: list[dict[str, Any]]) -> list[tuple[int, int]]:
    opened = [Image.open(io.BytesIO(base64.b64decode(image["b64_json"], validate=True))) for image in images]
    return [image.size for image in opened]


def test_models(url: str) -> None:
    assert outcome(url, Call("models")) == {"models": ["shapes"]}


def test_generate(url: str) -> None:
    fields = {"model": "shapes", "prompt": PROMPT, "size": "64x96", "quality": "low", "output_format": "webp"}
    assert sizes(outcome(url, Call("generate", fields))["images"]) == [(64, 96)]


def test_four_images_differ_and_their_seeds_count_up(url: str) -> None:
    fields = {"prompt": PROMPT, "n": 4, "quality": "low", "seed": 7}
    images = outcome(url, Call("generate", fields))["images"]
    assert [image["seed"] for image in images] == [7, 8, 9, 10]
    assert len({image["b64_json"] for image in images}) == 4


def test_edit_with_and_without_a_mask(url: str, tmp_path: Path) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    image.write_bytes(image_file(size=(64, 64), color=(250, 250, 0)))
    mask.write_bytes(image_file("RGBA", (64, 64), color=(0, 0, 0, 0)))
    fields = {"model": "shapes", "prompt": PROMPT}
    for files in ({"image": str(image)}, {"image": str(image), "mask": str(mask)}):
        assert sizes(outcome(url, Call("edit", fields, files))["images"]) == [(64, 64)]


def test_a_stream_has_previews_and_then_the_image(url: str) -> None:
    fields = {"prompt": PROMPT, "quality": "high", "stream": True, "partial_images": 1}
    events = outcome(url, Call("generate", fields))["events"]
    assert [event["type"] for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert sizes(events) == [(64, 64)] * 2


@pytest.mark.parametrize(
    ("fields", "kind", "status", "param"),
    [
        ({"size": "65x64"}, "BadRequestError", 400, "size"),
        ({"n": 9}, "BadRequestError", 400, "n"),
        ({"response_format": "url"}, "BadRequestError", 400, "response_format"),
        ({"model": "gpt-image-2"}, "NotFoundError", 404, "model"),
    ],
)
def test_errors_are_the_clients_own_with_the_field(
    url: str, fields: dict[str, object], kind: str, status: int, param: str
) -> None:
    error = outcome(url, Call("generate", {"prompt": PROMPT, **fields}))["error"]
    assert (error["kind"], error["status"], error["param"]) == (kind, status, param)


def test_without_the_key_there_is_no_answer(url: str) -> None:
    calls = [Call("models"), Call("generate", {"prompt": PROMPT})]
    assert [item["error"]["kind"] for item in make_calls(url, "sk-other", calls)] == ["AuthenticationError"] * 2
