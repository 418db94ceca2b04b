#!/usr/bin/env python3
"""Users of a served pipeline, with the standard library alone: it runs in a pod of `make demo-canary`.

python demo_load_generator.py http://shapes:8000 --users 2 --pause 0.3

Once the first image has come, every second one line of JSON says what has come back so far.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

MODEL = "generate_4_pipeline"
PROMPT = "a red circle on a blue background"
GUIDANCE = 2.0
SIZE = 64
TIMEOUT_SECONDS = 120.0
_PNG = b"\x89PNG"
_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass
class Count:
    """What has come back, of all users."""

    images: int = 0
    failed: int = 0
    error: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, error: str) -> None:
        """One more answer; the error is empty when it was an image."""
        with self._lock:
            self.images += not error
            self.failed += bool(error)
            self.error = error or self.error

    def line(self, seconds: float) -> str:
        """One line of JSON with the counts and the rate after this many seconds."""
        stats = {"images": self.images, "failed": self.failed, "error": self.error}
        return json.dumps(stats | {"rate": round(self.images / max(seconds, 1.0), 1)})


def request_body(seed: int) -> bytes:
    """One request: a small image with 4 steps, sent back as bytes."""
    inputs = [
        {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": [PROMPT]},
        {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [seed]},
        {"name": "guidance_scale", "shape": [1, 1], "datatype": "FP32", "data": [GUIDANCE]},
        {"name": "height", "shape": [1, 1], "datatype": "INT32", "data": [SIZE]},
        {"name": "width", "shape": [1, 1], "datatype": "INT32", "data": [SIZE]},
    ]
    outputs = [{"name": "encoded_image", "parameters": {"binary_data": True}}]
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode()


def send_request(url: str, seed: int) -> str:
    """Ask once, over a connection of its own; empty when an image came, else what came."""
    body, kind = request_body(seed), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v2/models/{MODEL}/infer", body, kind)  # noqa: S310 - the demo's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - same
            start = int(answer.headers.get(_HEADER_LENGTH, 0)) + 4  # the length of the one text comes first
            return "" if answer.read()[start:].startswith(_PNG) else "no image in the answer"
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


def _send_requests(url: str, first: int, pause: float, count: Count) -> None:
    seed = first
    while True:
        count.add(send_request(url, seed))
        seed += 1
        time.sleep(pause)


def main() -> None:
    """Ask until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between an answer and the next request")
    arguments = parser.parse_args()
    # A pod's network, and the pipeline's Service, may need a moment.
    while send_request(arguments.url, 0):
        time.sleep(0.5)
    count, began = Count(), time.monotonic()
    for user in range(arguments.users):
        request_arguments = (arguments.url, user * 1_000_000, arguments.pause, count)
        threading.Thread(target=_send_requests, args=request_arguments, daemon=True).start()
    while True:
        time.sleep(1)
        print(count.line(time.monotonic() - began), flush=True)


if __name__ == "__main__":
    main()
