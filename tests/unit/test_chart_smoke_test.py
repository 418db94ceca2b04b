"""What `helm test` runs: it believes nobody who does not answer, and no empty image."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = (ROOT / "charts" / "diffusion-operator" / "files" / "smoke_test.py").read_text()
PATH = "/v2/models/generate_4_pipeline/infer"


@contextmanager
def server(image: list[int], status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Something that is ready and answers every question with this image; also the questions that it got."""
    questions: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"ok", 200)

        def do_POST(self) -> None:
            questions.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            output = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": image}
            self._answer(json.dumps({"outputs": [output]}).encode(), status)

        def _answer(self, body: bytes, code: int) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the parent's signature
            """A test prints nothing."""

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", questions
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def run_script(*urls: str) -> subprocess.CompletedProcess[str]:
    """As the pod of the chart runs it."""
    command = [sys.executable, "-c", SCRIPT, *urls]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_an_image_is_asked_for_as_triton_wants_it_and_looked_at() -> None:
    with server([0, 1, 2, 3, 4, 5]) as (url, questions):
        process = run_script(f"{url}/readyz", url + PATH)
    assert process.returncode == 0, process.stderr
    assert "generated an image of shape [1, 1, 2, 3]" in process.stdout
    [tensor] = questions[0]["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("prompt", "BYTES", [1, 1])


def test_without_a_pipeline_only_the_operator_is_asked() -> None:
    with server([]) as (url, questions):
        assert run_script(f"{url}/readyz").returncode == 0
    assert questions == []


def test_an_empty_image_is_none() -> None:
    with server([7] * 6) as (url, _):
        process = run_script(f"{url}/readyz", url + PATH)
    assert process.returncode == 1
    assert "empty image" in process.stderr


def test_the_words_of_a_server_that_refuses_are_told() -> None:
    with server([1, 2], status=400) as (url, _):
        process = run_script(f"{url}/readyz", url + PATH)
    assert process.returncode == 1
    assert "answered 400" in process.stderr
