"""What the operator makes of a real Triton's metrics: right counts, failures and latencies of ensembles."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tritonclient.utils import InferenceServerException

from diffusion_contract.spec.rollout import Analysis
from diffusion_operator.analysis.evaluation import evaluate
from diffusion_operator.analysis.window import ScrapeTarget
from diffusion_operator.metrics_scraper import MetricsScraper
from tests.support.triton.client import ImageRequest, send, send_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_operator.analysis.window import Window
    from tests.support.triton.tritonserver import Server

_PROMPT = "a red circle on a blue background"
_SHORT, _LONG = "generate_4_pipeline", "generate_20_pipeline"


LIMITS = Analysis(min_requests=10)


def window(server: Server, work: Callable[[], object]) -> Window:
    """What the server has counted while the work was done."""
    address = urlsplit(server.metrics)
    scraper = MetricsScraper(port=address.port or 0)
    target = ScrapeTarget("cpu", "aaaa", "1", {"pod": address.hostname or ""})

    async def read() -> Window:
        return (await scraper.windows("a/b", [target]))[target.key]

    assert asyncio.run(read()).unreachable_pods == 0
    work()
    return asyncio.run(read())


def test_counts_steps_and_latencies_of_ensembles(ddim: Server) -> None:
    took: list[float] = []

    def work() -> None:
        for seed in range(5):
            began = time.monotonic()
            send(ddim.http, ImageRequest(4, [_PROMPT], seed=[seed]))
            took.append(time.monotonic() - began)
        send(ddim.http, ImageRequest(20, [_PROMPT] * 3, seed=[1, 2, 3]))

    statistics = window(ddim, work)
    counts = {name: (item.succeeded, item.failed) for name, item in statistics.ensembles.items()}
    assert counts == {_SHORT: (5, 0), _LONG: (1, 0)}
    assert (statistics.steps.requests, statistics.steps.samples) == (5 * 4 + 20, 5 * 4 + 20 * 3)
    short = statistics.ensembles[_SHORT]
    # The client sees more than the server, and nearly all of it is the server's.
    assert 0.5 * sum(took) < short.seconds <= sum(took)
    assert short.p50 is not None
    assert short.p95 is not None
    assert 0 < short.p50 <= short.p95
    assert statistics.step_seconds is not None
    assert statistics.step_seconds * statistics.steps.requests < sum(
        item.seconds for item in statistics.ensembles.values()
    )


def test_requests_that_fail_are_counted(ddim: Server) -> None:
    def work() -> None:
        for _ in range(3):
            with pytest.raises(InferenceServerException):
                send(ddim.http, ImageRequest(4, [_PROMPT], guidance_scale=[float("nan")]))
        send_all(ddim.http, [ImageRequest(4, [_PROMPT], seed=[seed]) for seed in range(6)])

    statistics = window(ddim, work)
    # An ensemble whose branches fail at the same time is counted for each of them: docs/analysis.md.
    assert 3 <= statistics.ensembles[_SHORT].failed <= 6
    assert (statistics.ensembles[_SHORT].succeeded, statistics.failures) == (6, statistics.ensembles[_SHORT].failed)


def test_a_real_server_is_told_from_one_that_fails_half_of_its_requests(ddim: Server) -> None:
    def good() -> None:
        send_all(ddim.http, [ImageRequest(4, [_PROMPT], seed=[seed]) for seed in range(12)])

    def bad() -> None:
        good()
        for _ in range(12):
            with pytest.raises(InferenceServerException):
                send(ddim.http, ImageRequest(4, [_PROMPT], guidance_scale=[float("nan")]))

    stable, canary = window(ddim, good), window(ddim, bad)
    verdict = evaluate(LIMITS, stable, canary)
    assert (verdict.outcome, verdict.reason) == ("Fail", "ErrorRatio"), verdict.message
    assert evaluate(LIMITS, stable, stable).outcome == "Pass"
