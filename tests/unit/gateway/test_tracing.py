"""Spans of requests: what they say, how they hang together, and that no collector can hold up an answer."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from diffusion_gateway.errors import unavailable
from diffusion_gateway.settings import TracingSettings
from tests.support.collector import CollectedSpan, collector
from tests.support.gateway.api import PROMPT, SETTINGS, Api, run
from tools.devcluster.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from diffusion_gateway.settings import Settings

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
REQUEST = "POST /v1/images/generations"


def spans_of(
    test: Callable[[Api], Awaitable[None]], settings: Settings = SETTINGS, rate: int = 1
) -> list[CollectedSpan]:
    """Spans that a gateway sends for what a test does; it sends all of them before it ends."""
    with collector() as server:
        tracing = TracingSettings(server.endpoint, rate, (("service.name", "shapes-api"),))
        run(test, replace(settings, tracing=tracing))
        return server.spans()


def traceparent(*, is_sampled: bool) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{CALLER}-{int(is_sampled):02x}"}


def test_a_request_waits_and_is_inferred() -> None:
    async def scene(api: Api) -> None:
        await api.post(headers={**traceparent(is_sampled=True), "x-diffusion-user": "00ff"}, n=2)
        headers.update(api.triton.requests[0][1])

    headers: dict[str, str] = {}
    spans = {span.name: span for span in spans_of(scene)}
    request, wait, call = spans[REQUEST], spans["wait"], spans["infer"]
    assert {span.trace for span in spans.values()} == {TRACE}
    assert (request.parent, wait.parent, call.parent) == (CALLER, request.id, request.id)
    assert headers == {"traceparent": f"00-{TRACE}-{call.id}-01", "x-diffusion-user": "00ff"}
    attributes = {name.removeprefix("diffusion."): value for name, value in request.attributes.items()}
    assert attributes.pop("request_id")
    assert attributes == {
        "http.request.method": "POST", "http.route": "/v1/images/generations", "http.response.status_code": "200",
        "model": "shapes", "key": "anonymous", "images": "2",
    }  # fmt: skip
    assert call.attributes["diffusion.ensemble"] == "generate_20_pipeline"
    assert request.resource["service.name"] == "shapes-api"


def test_a_preview_has_a_span_of_its_own() -> None:
    async def scene(api: Api) -> None:
        await api.post(stream=True, partial_images=1)

    spans = spans_of(scene)
    [request] = [span for span in spans if span.name == REQUEST]
    assert [span.parent for span in spans if span.name == "infer"] == [request.id] * 2


def test_a_request_that_is_not_traced_is_not_traced_in_triton_either() -> None:
    """Triton traces every request with a `traceparent`, whatever its flags say."""

    async def scene(api: Api) -> None:
        await api.post(headers=traceparent(is_sampled=False))
        assert api.triton.requests[0][1] == {}

    assert spans_of(scene) == []


def test_one_of_so_many_requests_without_a_trace_is_traced() -> None:
    async def scene(api: Api) -> None:
        for _ in range(200):
            await api.post()

    # Fewer than one in two billion times there is none or there are more than 60.
    assert 0 < len([span for span in spans_of(scene, rate=10) if span.name == REQUEST]) <= 60


def test_failures_of_the_server_are_marked_and_those_of_clients_are_not() -> None:
    async def failing(api: Api) -> None:
        api.triton.failure = unavailable("the model shapes does not answer now: send it again")
        await api.post()

    async def rejected(api: Api) -> None:
        await api.post(n=9)

    [request] = [span for span in spans_of(failing) if span.name == REQUEST]
    assert (request.has_failed, request.attributes["http.response.status_code"]) == (True, "503")
    [request] = spans_of(rejected)
    assert (request.has_failed, request.attributes["http.response.status_code"]) == (False, "400")


def test_neither_prompts_nor_keys_are_in_spans() -> None:
    async def scene(api: Api) -> None:
        api.triton.failure = unavailable("the model shapes does not answer now: send it again")
        await api.post(headers={"authorization": "Bearer sk-secret"}, size="1x1")
        await api.post()

    text = str(spans_of(scene))
    assert PROMPT["prompt"] not in text
    assert "sk-secret" not in text


@pytest.mark.parametrize("kind", ["nobody listens", "nobody answers"])
def test_a_collector_that_does_not_answer_holds_up_nothing(kind: str) -> None:
    async def scene(api: Api) -> None:
        for _ in range(5):
            assert (await api.post()).status_code == 200

    (port,) = free_ports(1)
    with collector() as server:
        server.shutdown()
        endpoint = f"http://127.0.0.1:{port}/v1/traces" if kind == "nobody listens" else server.endpoint
        began = time.monotonic()
        run(scene, replace(SETTINGS, tracing=TracingSettings(endpoint, 1)))
    # The end waits for the collector, not longer than twice what is allowed for one request to it.
    assert time.monotonic() - began < 20
