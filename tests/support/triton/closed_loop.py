"""Clients that send one request after the other: what of their requests counts, and how all of them are waited for."""

from __future__ import annotations

from threading import Event, Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Countdown:
    """Waits for a number of threads without holding them up."""

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._lock, self._over = Lock(), Event()

    def count(self) -> None:
        """One more thread is there."""
        with self._lock:
            self._missing -= 1
            if self._missing == 0:
                self._over.set()

    def wait(self, seconds: float) -> None:
        """Return when all threads are there.

        Raises:
            SystemExit: they are not in that time.
        """
        if not self._over.wait(seconds):
            raise SystemExit(f"{self._missing} clients had no answer within {seconds:.0f} s")


def images_between(requests: Sequence[tuple[float, float]], began: float, ended: float) -> float:
    """How many images were made in a time, by when each one's request was sent and answered.

    A batch of requests ends at once, so that counting answers would depend on whether the last one is just in or just
    out: of a request that lies partly in the time, that part is counted.
    """
    return sum(max(min(end, ended) - max(begin, began), 0.0) / (end - begin) for begin, end in requests)
