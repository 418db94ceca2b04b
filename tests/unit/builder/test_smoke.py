"""A server counts as ready only when every ensemble has answered with an image."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.errors import ExitCode, SmokeTestError
from diffusion_builder.serving.smoke import smoke_test
from diffusion_builder.store import Artifact, Kind, Manifest
from tests.support.loopback import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUEST = [
    {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["an image"]},
    {"name": "input_image", "datatype": "UINT8", "shape": [1, 8, 8, 3]},
    {"name": "prompt_embeddings", "datatype": "FP32", "shape": [1, 2, 4]},
    {"name": "height", "datatype": "INT32", "shape": [1, 1], "data": [64]},
    {"name": "width", "datatype": "INT32", "shape": [1, 1], "data": [96]},
]
_ENSEMBLES = ["generate_4_pipeline", "generate_20_pipeline"]
_EXTRA = {
    "ensembles": _ENSEMBLES,
    "requests": dict.fromkeys(_ENSEMBLES, _REQUEST),
}
# An answer, or its header and binary content.
Body = bytes | tuple[bytes, bytes]
_REPOSITORY = Artifact(Path("x"), Manifest(Kind.REPOSITORY, "0" * 64, {}, {}, extra=_EXTRA))


def _image(data: list[int], shape: list[int]) -> tuple[bytes, bytes]:
    """Header and content of an answer in Triton's binary form."""
    return json.dumps({"outputs": [{"name": "image", "datatype": "UINT8", "shape": shape}]}).encode(), bytes(data)


_GOOD = _image([0, 255] * (64 * 96 * 3 // 2), [1, 64, 96, 3])


class Server(ThreadingHTTPServer):
    def __init__(self, ready: int, answers: dict[str, tuple[int, Body]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ready, self.answers = ready, answers


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._send(self.server.ready, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, image, embeddings, *_ = body["inputs"]
        assert prompt == _REQUEST[0]
        assert [len(image["data"]), len(set(image["data"])) > 1, min(image["data"]) >= 0] == [192, True, True]
        assert [len(embeddings["data"]), all(-1 <= value <= 1 for value in embeddings["data"])] == [8, True]
        self._send(*self.server.answers.get(self.path.split("/")[3], (200, _GOOD)))

    def _send(self, status: int, body: Body) -> None:
        header, content = body if isinstance(body, tuple) else (body, b"")
        self.send_response(status)
        self.send_header("Inference-Header-Content-Length", str(len(header)))
        self.send_header("Content-Length", str(len(header + content)))
        self.end_headers()
        self.wfile.write(header + content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def _serve(ready: int = 200, **answers: tuple[int, Body]) -> Iterator[str]:
    with serving(Server(ready, answers)) as url:
        yield url


def test_all_ensembles_must_answer() -> None:
    with _serve() as url:
        assert smoke_test(url, _REPOSITORY, 10.0) == tuple(_ENSEMBLES)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, b'{"error":"broken engine"}'), "broken engine"),
        ((200, b"no json"), "cannot be read"),
        ((200, b"{}"), "cannot be read"),
        ((200, _image([7] * (64 * 96 * 3), [1, 64, 96, 3])), "a single color"),
        ((200, _image([1, 2], [1, 2, 1, 1])), "shape"),
        ((200, _image([0, 255] * (96 * 64 * 3 // 2), [1, 96, 64, 3])), "shape"),
    ],
)
def test_one_bad_ensemble_is_named(answer: tuple[int, Body], says: str) -> None:
    with _serve(generate_20_pipeline=answer) as url, pytest.raises(SmokeTestError, match=says) as caught:
        smoke_test(url, _REPOSITORY, 10.0)
    assert "generate_20_pipeline" in caught.value.message
    assert caught.value.exit_code == ExitCode.NOT_READY


def test_a_server_that_is_not_ready_is_asked_for_nothing_else() -> None:
    with _serve(503) as url, pytest.raises(SmokeTestError, match="not ready: status 503"):
        smoke_test(url, _REPOSITORY, 10.0)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8000"])
def test_only_http_is_asked(url: str) -> None:
    with pytest.raises(SmokeTestError, match="not an http address"):
        smoke_test(url, _REPOSITORY, 1.0)
