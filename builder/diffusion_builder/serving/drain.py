"""Wait until a server that gets no new connections has answered what it has. Standard library only.

Triton, told to stop, refuses new connections, continues to serve the open ones until `--exit-timeout-secs` and then
cuts them, even in the middle of an answer. So it is stopped only when nothing is being computed.
"""

from __future__ import annotations

import http.client
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PENDING = "nv_inference_pending_request_count"
EXECUTIONS = "nv_inference_exec_count"
COMPUTE = "nv_inference_compute_infer_duration_us"
ANSWERS = ("nv_inference_request_success", "nv_inference_request_failure")

_POLL_SECONDS = 0.25
_REQUEST_SECONDS = 5.0
_SHORTEST_STILL_SECONDS = 2.0
# Between two steps of one request nothing is counted: stillness must last longer than any step usually takes.
_STEPS_OF_STILLNESS = 3.0
_MICROSECONDS = 1e6


@dataclass(frozen=True)
class Load:
    """What the server's counters say.

    Args:
        pending: requests that wait for an execution.
        counted: executions and answers so far; while this grows, something is being computed.
        max_request_seconds: mean seconds of one execution of the slowest model.
    """

    pending: float
    counted: float
    max_request_seconds: float

    @property
    def still_seconds(self) -> float:
        """How long nothing may be counted before the server counts as idle."""
        return max(_SHORTEST_STILL_SECONDS, _STEPS_OF_STILLNESS * self.max_request_seconds)


def drain(
    read: Callable[[], Load | None],
    min_wait: float,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until the server is idle.

    Args:
        read: the load; None when the server does not answer, which is as good as idle.
        min_wait: minimum wait, seconds: until no client routes new connections here any more.
        timeout: seconds after which the wait ends.
        clock: seconds.
        sleep: waits.

    Returns:
        True when it is idle, False when the time was up.
    """
    began = clock()
    before, since = read(), began
    while before is not None:
        now = clock()
        if now - began >= max(min_wait, before.still_seconds) and now - since >= before.still_seconds:
            return True
        if now - began >= timeout:
            return False
        sleep(_POLL_SECONDS)
        load = read()
        if load is None or load.pending > 0 or load.counted != before.counted:
            since = clock()
        before = load
    return True


def read_load(url: str) -> Load | None:
    """The load of the server with this metrics address; None when it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=_REQUEST_SECONDS) as response:  # noqa: S310 - the pod's own address
            return parse(response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        return None


def parse(text: str) -> Load:
    """The load from metrics in Prometheus' text format."""
    samples = list(_samples(text.splitlines()))
    executions = {labels: value for name, labels, value in samples if name == EXECUTIONS}
    seconds = {labels: value / _MICROSECONDS for name, labels, value in samples if name == COMPUTE}
    answers = sum(value for name, _, value in samples if name in ANSWERS)
    return Load(
        pending=sum(value for name, _, value in samples if name == PENDING),
        counted=sum(executions.values()) + answers,
        max_request_seconds=max(
            (seconds.get(labels, 0.0) / count for labels, count in executions.items() if count), default=0.0
        ),
    )


def _samples(lines: Iterable[str]) -> Iterator[tuple[str, str, float]]:
    for line in lines:
        head, _, value = line.rpartition(" ")
        if head and not line.startswith("#"):
            name, _, labels = head.partition("{")
            yield name, labels, float(value)
