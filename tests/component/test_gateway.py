"""The gateway in front of real Triton with the demo checkpoint, with the official client, unchanged."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from diffusion_gateway.keys import digest_of
from tests.support.builder.repository import Built, build_repository
from tests.support.gateway.browser import CONTROL, ENTER, TAB, Browser, open_browser
from tests.support.gateway.running import GatewayProcess, start_gateway, wait_until
from tests.support.triton.client import ImageRequest, Pixels, counts, psnr, send, tensor
from tests.support.triton.client import answer as triton_answer
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIPELINES = [
    {"task": "generate", "steps": [4, 20], "previews": [2, 10]},
    {"task": "img2img", "steps": [4]},
    {"task": "inpaint", "steps": [4], "previews": [2]},
]
KEY = "sk-component-test"
PROMPT = "a red circle on a blue background"
# Batches of another size take other code paths in matrix products: last bits differ, images do not.
SAME_DB = 45.0
CLIENTS, REQUESTS = 60, 3


@pytest.fixture(scope="module")
def models(store: Path, checkpoint: Path) -> Path:
    results = build_repository(store, checkpoint, pipelines=PIPELINES)
    return Built(store, str(results[-1]["digest"])).models


@pytest.fixture(scope="module")
def triton(models: Path) -> Iterator[Server]:
    with serve(models) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(triton: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "team", "sha256": digest_of(KEY)}]}))
    options = ["--pipeline", f"shapes={triton.grpc}", "--keys", str(keys), "--concurrent", "8", "--waiting", "16"]
    with start_gateway(folder, *options) as process:
        yield process


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as official:
        yield official


def _pixels(text: str | None) -> Pixels:
    with Image.open(io.BytesIO(base64.b64decode(text or "", validate=True))) as image:
        return np.asarray(image.convert("RGB"))


def _file(color: tuple[int, ...], mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (64, 64), color).save(file, "PNG")
    return file.getvalue()


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["shapes"]
    assert client.models.retrieve("shapes").owned_by == "diffusion-operator"


def test_images_are_those_of_triton_with_seeds_that_count_up(client: openai.OpenAI, triton: Server) -> None:
    answer = client.images.generate(
        model="shapes", prompt=PROMPT, n=2, size="64x64", quality="low", extra_body={"seed": 7, "guidance_scale": 4.0}
    )
    images = [_pixels(image.b64_json) for image in answer.data or []]
    expected = [send(triton.http, ImageRequest(4, [PROMPT], seed=[seed], guidance_scale=[4.0]))[0] for seed in (7, 8)]
    assert [psnr(*pair) >= SAME_DB for pair in zip(images, expected, strict=True)] == [True, True]
    assert (answer.size, answer.output_format) == ("64x64", "png")


def test_formats_and_their_provenance(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt=PROMPT, quality="low", size="96x64", output_format="webp", output_compression=80
    )
    with Image.open(io.BytesIO(base64.b64decode((answer.data or [])[0].b64_json or ""))) as image:
        assert (image.format, image.size) == ("WEBP", (96, 64))
        assert "trainedAlgorithmicMedia" in str(image.info["xmp"])


def test_an_edit_with_a_transparent_hole_repaints_the_hole_only(client: openai.OpenAI) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    file = io.BytesIO()
    mask.save(file, "PNG")
    answer = client.images.edit(
        image=("image.png", _file((250, 250, 0))), mask=("mask.png", file.getvalue()), prompt=PROMPT,
        extra_body={"seed": 3, "paste_back": True},
    )  # fmt: skip
    pixels = _pixels((answer.data or [])[0].b64_json).astype(int)
    assert (pixels[:, 32:] == (250, 250, 0)).all()
    assert np.abs(pixels[:, :32] - (250, 250, 0)).mean() > 30


def test_an_edit_without_a_mask_is_img2img(client: openai.OpenAI, triton: Server) -> None:
    file = _file((250, 250, 0))
    answer = client.images.edit(image=("image.png", file), prompt=PROMPT, extra_body={"strength": 0.5, "seed": 3})
    tensors = [
        tensor("prompt", "BYTES", np.array([[PROMPT.encode()]], object)),
        tensor("seed", "INT64", np.array([[3]], np.int64)),
        tensor("strength", "FP32", np.array([[0.5]], np.float32)),
        tensor("input_image_file", "BYTES", np.array([[file]], object)),
    ]
    expected = triton_answer(triton.http, "img2img_4_pipeline", tensors, ["image"]).as_numpy("image")[0]
    assert psnr(_pixels((answer.data or [])[0].b64_json), expected) >= SAME_DB


def test_a_stream_has_previews_and_then_the_image(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt=PROMPT, quality="high", stream=True, partial_images=2, extra_body={"seed": 7}
    )
    images = {event.type: _pixels(event.b64_json) for event in stream}
    assert list(images) == ["image_generation.partial_image", "image_generation.completed"]
    alone = client.images.generate(prompt=PROMPT, quality="high", extra_body={"seed": 7})
    assert psnr(images["image_generation.completed"], _pixels((alone.data or [])[0].b64_json)) >= SAME_DB


@pytest.mark.parametrize(
    ("values", "kind", "param"),
    [
        ({"size": "65x64"}, openai.BadRequestError, "size"),
        ({"n": 9}, openai.BadRequestError, "n"),
        ({"response_format": "url"}, openai.BadRequestError, "response_format"),
        ({"background": "transparent"}, openai.BadRequestError, "background"),
        ({"model": "gpt-image-2"}, openai.NotFoundError, "model"),
        ({"extra_body": {"contrast": 9}}, openai.BadRequestError, "contrast"),
        ({"extra_body": {"num_inference_steps": 7}}, openai.BadRequestError, "num_inference_steps"),
    ],
)
def test_errors_are_the_clients_own_with_the_field(
    client: openai.OpenAI, values: dict[str, Any], kind: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(kind) as caught:
        client.images.generate(prompt=PROMPT, **values)
    assert caught.value.param == param


def test_a_broken_image_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=("image.png", _file((1, 2, 3))[:-30]), prompt=PROMPT)
    assert caught.value.param == "image"


def test_without_the_key_there_is_no_answer_and_it_is_in_no_log(gateway: GatewayProcess, client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-other-secret").images.generate(prompt=PROMPT)
    wait_until(lambda: "status=401" in gateway.log.read_text())
    log = gateway.log.read_text()
    assert not [text for text in (KEY, "sk-other-secret", PROMPT) if text in log]


def test_a_client_that_goes_away_ends_its_steps(gateway: GatewayProcess, triton: Server) -> None:
    before = counts(triton.http, "5_denoiser")
    body = {"prompt": PROMPT, "quality": "high", "n": 8, "size": "128x128"}
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.Client(headers={"authorization": f"Bearer {KEY}"}) as impatient,
    ):
        impatient.post(f"{gateway.url}/v1/images/generations", json=body, timeout=httpx.Timeout(30.0, read=0.3))
    gone = {"model": "shapes", "key": "team", "operation": "generate", "status": "499"}
    wait_until(lambda: gateway.value("requests_total", **gone) == 1)
    assert gateway.value("running_images", model="shapes") == 0
    wait_until(lambda: _is_idle(triton))
    assert counts(triton.http, "5_denoiser").since(before).samples < 8 * 20


def _is_idle(triton: Server) -> bool:
    """Whether the denoiser makes no further calls: a probe of four steps counts four."""
    before = counts(triton.http, "5_denoiser")
    send(triton.http, ImageRequest(4, [PROMPT]))
    return counts(triton.http, "5_denoiser").since(before).samples == 4


def test_many_clients_get_an_image_or_a_429_at_once_and_nobody_hangs(gateway: GatewayProcess) -> None:
    outcomes: list[tuple[int, float]] = []

    async def work(client: httpx.AsyncClient, number: int) -> None:
        for index in range(REQUESTS):
            started = time.monotonic()
            body = {"prompt": PROMPT, "quality": "low", "seed": number * REQUESTS + index}
            answer = await client.post("/v1/images/generations", json=body)
            outcomes.append((answer.status_code, time.monotonic() - started))

    async def main() -> None:
        headers, limits = {"authorization": f"Bearer {KEY}"}, httpx.Limits(max_connections=CLIENTS)
        async with (
            httpx.AsyncClient(base_url=gateway.url, headers=headers, limits=limits, timeout=300.0) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(CLIENTS):
                group.create_task(work(client, number))

    asyncio.run(main())
    statuses = Counter(status for status, _ in outcomes)
    assert statuses.keys() == {200, 429}
    assert statuses.total() == CLIENTS * REQUESTS
    # All that run or wait at the beginning get their images.
    assert statuses[200] >= 8 + 16
    seconds = {code: statistics.median(time for status, time in outcomes if status == code) for code in statuses}
    assert seconds[429] < seconds[200]
    assert gateway.value("rejected_requests_total", model="shapes", key="team") == statuses[429]
    assert gateway.value("running_images", model="shapes") == gateway.value("waiting_requests", model="shapes") == 0
    assert gateway.resident_bytes < 200 << 20


def test_when_triton_is_killed_its_requests_get_an_error_that_says_to_send_them_again(
    models: Path, tmp_path: Path
) -> None:
    body = {"prompt": PROMPT, "quality": "high", "n": 8, "size": "128x128"}
    with (
        serve(models) as server,
        start_gateway(tmp_path, "--pipeline", f"shapes={server.grpc}", "--auth", "none") as process,
        ThreadPoolExecutor(4) as pool,
    ):
        path = f"{process.url}/v1/images/generations"
        answers = [pool.submit(httpx.post, path, json=body, timeout=300.0) for _ in range(4)]
        wait_until(lambda: process.value("running_images", model="shapes") == 16)
        os.kill(server.pid, signal.SIGKILL)
        statuses = {(one.result().status_code, one.result().headers.get("retry-after")) for one in answers}
        assert statuses == {(503, "1")}
        assert httpx.get(f"{process.url}/healthz", timeout=60.0).is_success
        assert process.value("running_images", model="shapes") == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as chromium:
        yield chromium


@pytest.fixture
def page(browser: Browser, gateway: GatewayProcess) -> Browser:
    browser.open(gateway.url)
    browser.wait_for("return document.querySelector('#status').innerText === 'Enter a key to begin.'")
    browser.type("#key", KEY + TAB)
    browser.wait_for("return document.querySelector('#status').innerText === 'Ready.'")
    browser.problems()
    return browser


def _generate(page: Browser, images: int, history: int) -> None:
    """Press Generate, and wait for so many images and entries of the history."""
    page.click("#generate")
    page.wait_for(
        "return document.querySelectorAll('figure:not(.preview) img').length === arguments[0] && "
        "document.querySelectorAll('#history li').length === arguments[1]",
        images,
        history,
    )
    assert page.text("#error") == ""


def test_on_the_page_one_generates_paints_a_mask_and_looks_back(page: Browser, triton: Server, tmp_path: Path) -> None:
    page.type("#prompt", PROMPT)
    page.type("#seed", "7")
    page.choose("#num_inference_steps", "4")
    page.choose("#partial_images", "1")
    page.type("#n", "2")
    _generate(page, images=2, history=1)
    (tmp_path / "image.png").write_bytes(_file((250, 250, 0)))
    page.choose("#image", str(tmp_path / "image.png"))
    page.wait_for("return !document.querySelector('#edit').hidden")
    page.type("#n", "1")
    page.drag("#mask", (-60, 0), (60, 0))
    before = counts(triton.http, "inpaint_4_pipeline")
    _generate(page, images=1, history=2)
    assert counts(triton.http, "inpaint_4_pipeline").since(before).samples >= 1
    page.click("#copy-curl")
    assert "-F mask=@mask.png" in page.text("#code")
    page.click("#history li:last-child button")
    page.wait_for("return document.querySelectorAll('figure').length === 2 && document.querySelector('#edit').hidden")
    assert page.run("return document.querySelector('#n').value") == "2"
    assert page.problems() == []


def test_on_the_page_twenty_images_with_the_keyboard_alone(page: Browser) -> None:
    page.choose("#prompt", PROMPT)
    page.choose("#num_inference_steps", "4")
    for number in range(1, 21):
        page.choose("#prompt", CONTROL + ENTER)
        page.wait_for("return document.querySelectorAll('#history li').length === arguments[0]", number)
    assert page.problems() == []


def test_on_the_page_an_error_is_at_its_field_and_a_phone_shows_everything(page: Browser) -> None:
    page.resize(390, 800)
    page.type("#prompt", PROMPT)
    page.type("#size", "65x64")
    page.click("#generate")
    page.wait_for("return !document.querySelector('#error').hidden")
    assert "width 65 is not supported" in page.text("#error")
    assert page.run("return document.activeElement.getAttribute('aria-invalid')") == "true"
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    unlabeled = page.run(
        "return [...document.querySelectorAll('input, select, textarea, button, canvas[tabindex]')]"
        ".filter((one) => !one.labels?.length && !one.innerText && !one.getAttribute('aria-label'))"
        ".map((one) => one.id)"
    )
    assert unlabeled == []
    page.resize(1280, 900)
