"""Users who request images, each request over a connection of its own, and what they are told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from examples.client import ClientError, InferenceCall, Request, Server
from tests.support.cluster.kube import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIMIT_SECONDS = 300.0
_PNG = b"\x89PNG"


@dataclass
class Load:
    """What has come back so far; safe to read while it goes on.

    Attributes:
        answered: images.
        lost: how often each error was told instead of an image.
        pause: seconds between an answer and the same user's next request.
    """

    answered: int = 0
    pause: float = 0.0
    lost: Counter[str] = field(default_factory=Counter)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Images a second since the first request."""
        return self.answered / max(0.001, time.monotonic() - self._began)

    def ask_until_over(self, server: Server, request: Request, steps: int) -> None:
        """One user: the next request, with the next seed, follows the answer to the last."""
        seed = request.seed or 0
        while not self._over.is_set():
            error = _request_error(server, replace(request, seed=seed), steps)
            with self._lock:
                self.answered += not error
                self.lost.update([f"after {time.monotonic() - self._began:.0f} s, {error}"] if error else [])
            seed += 1
            # A server that refuses at once must not be asked ten thousand times a second.
            self._over.wait(0.5 if error else self.pause)

    def stop(self) -> None:
        """No further request."""
        self._over.set()


def _request_error(server: Server, request: Request, steps: int) -> str:
    try:
        (image,) = server.send(InferenceCall(f"generate_{steps}_pipeline", request.inputs()))["encoded_image"]
    except ClientError as error:
        return f"{server.protocol}: {error}"
    return "" if image.startswith(_PNG) else "no PNG"


def _served(server: Server, request: Request, steps: int) -> bool:
    return not _request_error(server, request, steps)


@contextmanager
def load(users: Sequence[Server], request: Request, steps: int, pause: float = 0.0) -> Iterator[Load]:
    """Ask for as long as the block runs, once everybody has got an image; the last answers are waited for.

    Args:
        users: where each user asks.
        request: what everybody asks for, with other seeds each time.
        steps: tier.
        pause: seconds between an answer and the same user's next request.
    """
    for user in dict.fromkeys(users):
        # Nodes learn of the first endpoint a moment after everybody else.
        eventually(partial(_served, user, request, steps), 60, f"the first image from {user}")
    asking = Load(pause=pause)
    threads = [
        threading.Thread(target=asking.ask_until_over, args=(user, request, steps), daemon=True) for user in users
    ]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        asking.stop()
        for thread in threads:
            thread.join(LIMIT_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "a request is never answered"
