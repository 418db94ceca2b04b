"""Users who never stop: small pictures from a Service, a new connection each, everything counted."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.client import ClientError, Request, generate
from examples.demo_support.settings import GUIDANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS = ("a red circle on a blue background", "a yellow star on a purple background")
TIMEOUT_SECONDS = 60.0


@dataclass
class Load:
    """What has been asked and answered so far; safe to read while it goes on.

    Attributes:
        url: host:port; a new connection for each request, so that the Service chooses a pod each time.
        clients: how many ask at once.
        steps: tier.
        seconds: since it began.
    """

    url: str
    clients: int = 4
    steps: int = 4
    answered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = field(default_factory=time.monotonic)

    @property
    def failures(self) -> int:
        """Requests without a picture."""
        return self.lost.total()

    @property
    def rate(self) -> float:
        """Pictures a second, on average."""
        return self.answered / max(0.001, time.monotonic() - self._began)

    def ask_until_stopped(self, number: int) -> None:
        """One user: the next request follows the answer to the last."""
        seed = number
        while not self._stop.is_set():
            prompt = PROMPTS[seed % len(PROMPTS)]
            request = Request(prompt=prompt, seed=seed, guidance_scale=GUIDANCE, height=64, width=64)
            try:
                picture = generate(self.url, self.steps, request, timeout=TIMEOUT_SECONDS)
                error = "" if picture.startswith(b"\x89PNG") else "no PNG"
            except ClientError as problem:
                error = str(problem)[:200]
            with self._lock:
                self.answered += not error
                if error:
                    self.lost[error] += 1
            seed += self.clients
            # A server that refuses at once must not be asked ten thousand times a second.
            self._stop.wait(0.5 if error else 0)

    def stop(self) -> None:
        """No further request; those under way are waited for by `users`."""
        self._stop.set()


@contextmanager
def users(url: str, clients: int = 4) -> Iterator[Load]:
    """Ask for as long as the block runs."""
    load = Load(url, clients)
    threads = [threading.Thread(target=load.ask_until_stopped, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS + 10)


def reachable(address: str, port: int, seconds: float = 3.0) -> bool:
    """Whether this machine can open connections to a Service's address, as a node of the cluster can."""
    try:
        with socket.create_connection((address, port), seconds):
            return True
    except OSError:
        return False
