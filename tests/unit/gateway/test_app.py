"""The API over HTTP, in front of a Triton that answers when the test lets it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import c2pa
import pytest
from PIL import Image

from diffusion_gateway.errors import ApiError
from diffusion_gateway.settings import (
    ProvenanceSettings,
    QueueLimits,
    RequestLimits,
    Settings,
)
from tests.support.gateway.api import EDITS, GENERATIONS, PROMPT, SETTINGS, Api, run
from tests.support.gateway.certificates import write_certificates
from tests.support.gateway.pipelines import image_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from diffusion_gateway.catalog import Catalog


def _image(entry: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(entry["b64_json"], validate=True)))


def test_images_come_with_their_seeds() -> None:
    async def test(api: Api) -> None:
        answer = (await api.post(n=2, seed=7, output_format="webp")).json()
        assert [entry["seed"] for entry in answer["data"]] == [7, 8]
        assert [_image(entry).format for entry in answer["data"]] == ["WEBP", "WEBP"]
        assert (answer["size"], answer["output_format"], answer["background"]) == ("64x48", "webp", "opaque")
        assert api.value("images_total", model="shapes", key="anonymous", kind="image") == 2

    run(test)


def test_without_a_seed_each_request_has_another_one() -> None:
    async def test(api: Api) -> None:
        seeds = {(await api.post()).json()["data"][0]["seed"] for _ in range(8)}
        assert len(seeds) == 8
        assert all(0 <= seed < 2**32 for seed in seeds)

    run(test)


def test_an_edit_is_sent_as_a_form() -> None:
    async def test(api: Api) -> None:
        files = {"image": ("a.png", image_file("RGBA")), "mask": ("m.png", image_file("RGBA", color=(0, 0, 0, 0)))}
        answer = await api.client.post(EDITS, data=PROMPT | {"n": "2", "strength": "0.5"}, files=files)
        assert answer.status_code == 200
        request, _ = api.triton.requests[-1]
        sent = {tensor.name: tensor.array for tensor in request.tensors}
        assert request.ensemble == "inpaint_20_pipeline"
        with Image.open(io.BytesIO(sent["mask_file"][1, 0])) as mask:
            assert (mask.mode, mask.getextrema()) == ("L", (255, 255))
        assert api.value("requests_total", model="shapes", key="anonymous", operation="edit", status="200") == 1

    run(test)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (GENERATIONS, {"model": "other"}, 404, "model"),
        (GENERATIONS, {"prompt": None}, 400, "prompt"),
        (GENERATIONS, {"image": base64.b64encode(image_file()).decode()}, 400, "image"),
        (GENERATIONS, {"size": "8192x8192"}, 400, "size"),
        (GENERATIONS, {"num_inference_steps": 5}, 400, "num_inference_steps"),
        (EDITS, {}, 400, "image"),
        (EDITS, {"image": "http://127.0.0.1:9/image.png"}, 400, "image"),
        (EDITS, {"image": base64.b64encode(b"GIF89a").decode()}, 400, "image"),
        (EDITS, {"image": base64.b64encode(image_file("1", (4100, 4100))).decode()}, 400, "image"),
    ],
)
def test_errors_name_the_field_and_never_reach_triton(path: str, body: dict[str, Any], status: int, param: str) -> None:
    async def test(api: Api) -> None:
        answer = await api.post(path, **body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param)
        assert answer.headers["x-request-id"]
        assert api.triton.requests == []

    run(test)


def test_models_are_listed_with_what_they_serve() -> None:
    async def test(api: Api) -> None:
        answer = (await api.client.get("/v1/models")).json()
        assert (answer["object"], [model["id"] for model in answer["data"]]) == ("list", ["shapes"])
        assert answer["data"][0]["ensembles"][1] == {
            "task": "generate", "features": [], "steps": 20, "scheduler": None, "previews": [2, 5, 10, 15], "max_n": 8,
        }  # fmt: skip
        assert (await api.client.get("/v1/models/shapes")).json() == answer["data"][0]
        assert (await api.client.get("/v1/models/other")).status_code == 404
        assert (await api.client.get("/v1/files")).json()["error"]["code"] == "not_found"
        assert (await api.client.get(GENERATIONS)).status_code == 405

    run(test)


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_partial_images_come_before_the_images() -> None:
    async def test(api: Api) -> None:
        answer = await api.post(stream=True, partial_images=2, n=2, seed=1)
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = _events(answer.text)
        kinds = [
            (event["type"].removeprefix("image_generation."), event.get("partial_image_index")) for event in events
        ]
        previews, completed = kinds[:-2], kinds[-2:]
        assert completed == [("completed", None)] * 2
        # One that is not finished before the images is left out.
        assert previews in ([("partial_image", 0)] * 2 + [("partial_image", 1)] * 2, [("partial_image", 0)] * 2, [])
        assert {request.output for request, _ in api.triton.requests} == {"preview_5", "preview_15", "encoded_image"}

    run(test)


def test_an_error_before_the_first_event_is_an_ordinary_answer() -> None:
    async def test(api: Api) -> None:
        api.triton.failure = ApiError("contrast 9 is not supported", "contrast")
        answer = await api.post(stream=True)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "contrast")

    run(test)


_LARGE = {"content-type": "application/json", "content-length": "1000000"}


async def _endless() -> AsyncIterator[bytes]:
    """A body that nobody reads: the first read of it would not end."""
    await asyncio.Event().wait()
    yield b""


def test_more_than_may_wait_get_429_at_once_while_others_wait() -> None:
    async def test(api: Api) -> None:
        api.triton.gate.clear()
        waiting = [asyncio.create_task(api.post()) for _ in range(3)]
        await api.wait_until(lambda: api.value("waiting_requests", model="shapes") == 2)
        answer = await asyncio.wait_for(api.post(), 5)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert answer.json()["error"]["type"] == "rate_limit_error"
        upload = await asyncio.wait_for(api.client.post(GENERATIONS, content=_endless(), headers=_LARGE), 5)
        assert (upload.status_code, upload.headers["connection"]) == (429, "close")
        assert api.value("rejected_requests_total", model="shapes", key="anonymous") == 2
        assert api.value("running_images", model="shapes") == 1
        api.triton.gate.set()
        assert [(await task).status_code for task in waiting] == [200] * 3

    run(test, Settings(SETTINGS.pipelines, queue=QueueLimits(1, 2)))


def test_a_request_that_takes_too_long_is_cancelled_in_triton() -> None:
    async def test(api: Api) -> None:
        api.triton.gate.clear()
        answer = await api.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert api.triton.cancelled == 1

    run(test, Settings(SETTINGS.pipelines, limits=RequestLimits(request_seconds=0.05)))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_goes_away_cancels_its_request_in_triton(is_stream: bool) -> None:  # noqa: FBT001 - a parameter
    async def test(api: Api) -> None:
        api.triton.gate.clear()
        body = json.dumps(PROMPT | ({"stream": True, "partial_images": 1} if is_stream else {})).encode()
        messages = [{"type": "http.request", "body": body}]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
            pytest.fail(f"nobody is there to read {message}")

        scope = {
            "type": "http", "method": "POST", "path": GENERATIONS, "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        request = asyncio.create_task(api.app(scope, receive, send))
        calls = 2 if is_stream else 1
        await api.wait_until(lambda: len(api.triton.requests) == calls)
        gone.set()
        await request
        assert api.triton.cancelled == calls
        assert api.value("running_images", model="shapes") == 0
        assert api.value("requests_total", model="shapes", key="anonymous", operation="generate", status="499") == 1

    run(test)


async def _check_images(api: Api, withheld: frozenset[int]) -> None:
    """Let the pipeline have a safety checker that withholds the images of these seeds."""
    api.triton.withheld = withheld
    catalog: Catalog = api.app.state.catalog
    await api.wait_until(lambda: any("flagged" in item.outputs for item in catalog.find("shapes").ensembles))


def test_a_withheld_image_is_not_just_black() -> None:
    async def test(api: Api) -> None:
        assert "flagged" not in (await api.post(seed=7)).json()["data"][0]
        await _check_images(api, frozenset({8}))
        answer = (await api.post(seed=7, n=2)).json()
        assert [(entry["seed"], entry["flagged"]) for entry in answer["data"]] == [(7, False), (8, True)]
        labels = {"model": "shapes", "key": "anonymous"}
        assert api.value("images_total", kind="withheld", **labels) == 1

    run(test)


def test_where_every_image_is_withheld_the_client_gets_an_error() -> None:
    async def test(api: Api) -> None:
        await _check_images(api, frozenset({8}))
        answer = await api.post(seed=8)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "moderation_blocked", "prompt")
        stream = await api.post(seed=8, stream=True)
        assert (stream.status_code, stream.json()["error"]["code"]) == (400, "moderation_blocked")
        stream = await api.post(seed=7, stream=True)
        assert [event["flagged"] for event in _events(stream.text)] == [False]

    run(test)


def test_pages_of_other_sites_cannot_use_the_api() -> None:
    async def test(api: Api) -> None:
        answer = await api.post(headers={"sec-fetch-site": "cross-site"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
        assert (await api.post(headers={"sec-fetch-site": "same-origin"})).status_code == 200

    run(test)


def test_what_routes_split_traffic_by_goes_on_to_triton() -> None:
    async def test(api: Api) -> None:
        names = [
            ("x-diffusion-user", b"00ff"),
            ("traceparent", b"00-1-2-01"),
            ("x-other", b"x"),
            ("tracestate", b"\xe9"),
        ]
        await api.client.post(GENERATIONS, json=PROMPT, headers=[(name.encode(), value) for name, value in names])
        assert api.triton.requests[0][1] == {"x-diffusion-user": "00ff", "traceparent": "00-1-2-01"}

    run(test)


def test_a_route_may_split_by_other_headers_too() -> None:
    async def test(api: Api) -> None:
        await api.post(headers={"X-Tester": "canary", "X-Diffusion-User": "00ff"})
        assert api.triton.requests[0][1] == {"x-tester": "canary", "x-diffusion-user": "00ff"}

    run(test, replace(SETTINGS, forwarded_headers=(*SETTINGS.forwarded_headers, "x-tester")))


def test_images_say_what_they_are_configured_to_say() -> None:
    async def test(api: Api) -> None:
        image = _image((await api.post(seed=99)).json()["data"][0])
        packet = str(image.info["xmp"])
        assert "trainedAlgorithmicMedia" in packet
        assert "<diffusion:seed>99<" in packet
        assert "a red star" not in packet

    run(test, Settings(SETTINGS.pipelines, provenance=ProvenanceSettings(seed=True)))


def test_images_are_signed_and_previews_are_not(tmp_path: Path) -> None:
    async def test(api: Api) -> None:
        answer = (await api.post(output_format="jpeg")).json()["data"][0]
        signed = io.BytesIO(base64.b64decode(answer["b64_json"]))
        assert c2pa.Reader("image/jpeg", signed).get_validation_state() == "Valid"
        kinds = {
            event["type"].rpartition(".")[2]: b"c2pa" in base64.b64decode(event["b64_json"])
            for event in _events((await api.post(stream=True, partial_images=1)).text)
        }
        assert kinds in ({"partial_image": False, "completed": True}, {"completed": True})

    run(test, replace(SETTINGS, signing=write_certificates(tmp_path)))


def test_a_body_that_is_too_large_or_of_another_type() -> None:
    async def test(api: Api) -> None:
        assert (await api.post(prompt="x" * 2000)).status_code == 413
        assert (await api.client.post(GENERATIONS, content=b"prompt=x")).status_code == 415

    run(test, Settings(SETTINGS.pipelines, limits=RequestLimits(upload_bytes=1000)))


def test_the_gateway_stays_ready_while_triton_is_away() -> None:
    async def test(api: Api) -> None:
        assert (await api.client.get("/healthz")).text == "ok"
        api.triton.is_up = False
        looked = api.triton.discoveries
        await api.wait_until(lambda: api.triton.discoveries > looked + 1)
        assert (await api.client.get("/readyz")).text == "ready"

    run(test)
