#!/usr/bin/env python3
"""Users of a served pipeline, with the standard library alone: it runs in a pod of `make demo-canary`.

python demo_visitors.py http://shapes:8000 --users 2 --pause 0.3

Once the first picture has come, every second one line of JSON says what has come back so far.
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

    pictures: int = 0
    lost: int = 0
    error: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, error: str) -> None:
        """One more answer; the error is empty when it was a picture."""
        with self._lock:
            self.pictures += not error
            self.lost += bool(error)
            self.error = error or self.error

    def line(self, seconds: float) -> str:
        """What is told, after so many seconds."""
        told = {"pictures": self.pictures, "lost": self.lost, "error": self.error}
        return json.dumps(told | {"rate": round(self.pictures / max(seconds, 1.0), 1)})


def question(seed: int) -> bytes:
    """One request: a small picture with 4 steps, sent back as bytes."""
    inputs = [
        {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": [PROMPT]},
        {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [seed]},
        {"name": "guidance_scale", "shape": [1, 1], "datatype": "FP32", "data": [GUIDANCE]},
        {"name": "height", "shape": [1, 1], "datatype": "INT32", "data": [SIZE]},
        {"name": "width", "shape": [1, 1], "datatype": "INT32", "data": [SIZE]},
    ]
    outputs = [{"name": "encoded_image", "parameters": {"binary_data": True}}]
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode()


def ask(url: str, seed: int) -> str:
    """Ask once, over a connection of its own; empty when a picture came, else what came."""
    body, kind = question(seed), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v2/models/{MODEL}/infer", body, kind)  # noqa: S310 - the demo's own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - same
            start = int(answer.headers.get(_HEADER_LENGTH, 0)) + 4  # the length of the one text comes first
            return "" if answer.read()[start:].startswith(_PNG) else "no picture in the answer"
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


def _visit(url: str, first: int, pause: float, count: Count) -> None:
    seed = first
    while True:
        count.add(ask(url, seed))
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
    while ask(arguments.url, 0):
        time.sleep(0.5)
    count, began = Count(), time.monotonic()
    for user in range(arguments.users):
        visit = (arguments.url, user * 1_000_000, arguments.pause, count)
        threading.Thread(target=_visit, args=visit, daemon=True).start()
    while True:
        time.sleep(1)
        print(count.line(time.monotonic() - began), flush=True)


if __name__ == "__main__":
    main()
