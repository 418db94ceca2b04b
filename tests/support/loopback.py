"""Servers of a test's own, in threads."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import HTTPServer

_POLL_SECONDS = 0.01


@contextmanager
def serving(server: HTTPServer) -> Iterator[str]:
    """Serve while the block runs, and close the server; yields its URL."""
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
