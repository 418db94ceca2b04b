"""People who ask for images, and what a gateway in front of the pods would say about them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from examples.client import ClientError, Request, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUESTS_METRIC = "front_requests_total"
_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = 60.0


@dataclass
class Front:
    """Counts what comes in, answered or not, and shows it to Prometheus.

    Attributes:
        address: host:port that Prometheus asks.
        lost: when a request was given up, and why.
    """

    address: str = ""
    request_count: int = 0
    lost: list[str] = field(default_factory=list)

    def ask(self, url: str, steps: int = 20) -> bytes | None:
        """One request over a connection of its own; None where nobody answers it."""
        self.request_count += 1
        try:
            request = Request(prompt="a red circle on a blue background", seed=7)
            return generate(url, steps, request, timeout=_TIMEOUT_SECONDS)
        except ClientError as error:
            self.lost.append(f"{datetime.now(UTC):%H:%M:%S.%f} {error}")
            return None

    def seconds_to_first_image(self, url: str, deadline: float) -> float:
        """Seconds from the first request until one is answered; asks again where nobody answers.

        Raises:
            AssertionError: Nobody answered within `deadline` seconds.
        """
        start = time.monotonic()
        while self.ask(url, steps=4) is None:
            assert time.monotonic() - start < deadline, f"no image within {deadline:.0f} s: {self.lost[-1]}"
            time.sleep(_PAUSE_SECONDS)
        return time.monotonic() - start


@contextmanager
def front() -> Iterator[Front]:
    """A counter of requests with its metrics endpoint."""
    counter = Front()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(f"# TYPE {REQUESTS_METRIC} counter\n{REQUESTS_METRIC} {counter.request_count}\n".encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        counter.address = f"127.0.0.1:{server.server_port}"
        yield counter
        server.shutdown()


@contextmanager
def clients(count: int, ask: Callable[[], object]) -> Iterator[None]:
    """So many people, each asking again as soon as it is answered, while the block runs."""
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            ask()

    threads = [threading.Thread(target=keep_asking) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
