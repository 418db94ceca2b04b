"""What tests of sources share: servers in threads, and what an artifact holds."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import ThreadingHTTPServer

    from diffusion_builder.store import Artifact

UNET = "unet/diffusion_pytorch_model.safetensors"


def ignore(_name: str, _fraction: float) -> None:
    return None


def files_of(artifact: Artifact) -> set[str]:
    return set(artifact.manifest.files)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
