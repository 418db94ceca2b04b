"""A stopping server is cut off only when it has answered all that it had."""

import itertools
from collections.abc import Callable, Iterable

import pytest

from diffusion_builder.serving.drain import Load, drain, parse

IDLE = Load(pending=0, counted=7, max_request_seconds=0.1)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(loads: Iterable[Load | None], min_wait: float = 5, timeout: float = 60) -> tuple[bool, float]:
    clock, answers = Clock(), iter(loads)
    read: Callable[[], Load | None] = lambda: next(answers)  # noqa: E731 - typed
    is_drained = drain(read, min_wait, timeout, clock, clock.sleep)
    return is_drained, clock.now


def test_an_idle_server_waits_only_until_nobody_routes_to_it() -> None:
    assert waited(itertools.repeat(IDLE)) == (True, 5.0)


def test_a_server_that_is_gone_is_not_waited_for() -> None:
    assert waited([None]) == (True, 0.0)
    assert waited([IDLE, None])[1] < 1


def test_it_waits_for_what_is_in_flight() -> None:
    busy = [Load(0, count, 0.1) for count in range(80)]  # 20 seconds of steps
    is_drained, seconds = waited(itertools.chain(busy, itertools.repeat(Load(0, 79, 0.1))))
    assert is_drained
    assert 20 <= seconds <= 23


def test_what_waits_in_a_queue_is_not_idle() -> None:
    assert waited(itertools.repeat(Load(1, 7, 0.1)), timeout=30) == (False, 30.0)


def test_a_slow_step_is_not_taken_for_the_end() -> None:
    slow = (Load(0, step, 4.0) for step in range(10) for _ in range(16))  # ten steps of four seconds
    is_drained, seconds = waited(itertools.chain(slow, itertools.repeat(Load(0, 9, 4.0))), timeout=100)
    assert is_drained
    assert seconds >= 36


@pytest.mark.parametrize("min_wait", [0, 5])
def test_it_never_waits_longer_than_allowed(min_wait: float) -> None:
    loads = (Load(0, count, 0.1) for count in itertools.count())
    assert waited(loads, min_wait, timeout=12) == (False, 12.0)


METRICS = """\
# HELP nv_inference_exec_count Number of model executions performed
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="5_denoiser",version="1"} 40.000000
nv_inference_exec_count{model="7_vae_decoder",version="1"} 2.000000
nv_inference_compute_infer_duration_us{model="5_denoiser",version="1"} 8000000
nv_inference_compute_infer_duration_us{model="7_vae_decoder",version="1"} 1000000
nv_inference_request_success{model="5_denoiser",version="1"} 44
nv_inference_request_failure{model="5_denoiser",reason="OTHER",version="1"} 1
nv_inference_pending_request_count{model="5_denoiser",version="1"} 3
nv_cpu_utilization 0.5
"""


def test_the_servers_counters_are_read() -> None:
    assert parse(METRICS) == Load(pending=3, counted=87, max_request_seconds=0.5)
