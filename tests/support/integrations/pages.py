"""Pages of metrics for Prometheus to read."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.support.loopback import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextmanager
def metrics_pages(pages: Mapping[str, Callable[[], str]]) -> Iterator[str]:
    """Serve path → page, rendered for each request and one at a time; yields host:port."""
    lock = threading.Lock()

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                page = pages[self.path]()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Pages)) as url:
        yield url.removeprefix("http://")
