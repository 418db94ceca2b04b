"""The operator reads metrics of all pods in bounded time and size; what does not answer is no data."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from diffusion_operator import metrics_scraper
from diffusion_operator.analysis.window import ScrapeTarget, Window
from diffusion_operator.metrics_scraper import MetricsScraper

KEY = ("cpu", "aaaa")


def metrics(requests: int) -> str:
    return f'nv_inference_request_success{{model="generate_4_pipeline",version="1"}} {requests}\n'


class Pods:
    """Pods by address, each with what it answers now."""

    def __init__(self, **answers: int | str | Exception) -> None:
        self.answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.urls: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(str(request.url))
        answer = self.answers[request.url.host]
        if isinstance(answer, Exception):
            raise answer
        return (
            httpx.Response(200, text=metrics(answer)) if isinstance(answer, int) else httpx.Response(500, text=answer)
        )


def watched(step: str = "1", **pods: str) -> ScrapeTarget:
    return ScrapeTarget("cpu", "aaaa", step, pods)


def scrape(scraper: MetricsScraper, *items: ScrapeTarget) -> Window:
    return asyncio.run(scraper.windows("studio/shapes", items))[KEY]


def fresh(pods: Callable[[httpx.Request], httpx.Response]) -> MetricsScraper:
    return MetricsScraper(transport=httpx.MockTransport(pods))


def test_the_first_reading_only_remembers_and_later_ones_sum_over_pods() -> None:
    pods = Pods(a=100, b=50)
    scraper = fresh(pods)
    assert scrape(scraper, watched(x="a", y="b")) == Window(pods=2)
    pods.answers |= {"a": 110, "b": 55}
    assert scrape(scraper, watched(x="a", y="b")).requests == 15
    assert pods.urls[0] == "http://a:8002/metrics"


def test_another_step_begins_anew() -> None:
    pods = Pods(a=100)
    scraper = fresh(pods)
    scrape(scraper, watched(x="a"))
    pods.answers["a"] = 150
    assert scrape(scraper, watched("2", x="a")).requests == 0
    pods.answers["a"] = 157
    assert scrape(scraper, watched("2", x="a")).requests == 7


def test_pods_come_and_go_and_nothing_is_lost_or_counted_twice() -> None:
    pods = Pods(a=100, b=1000)
    scraper = fresh(pods)
    scrape(scraper, watched(x="a"))
    pods.answers["a"] = 110
    assert scrape(scraper, watched(x="a", y="b")).requests == 10
    pods.answers["b"] = 1005
    assert scrape(scraper, watched(y="b")).requests == 15
    pods.answers["b"] = 3
    assert scrape(scraper, watched(y="b")).requests == 18


@pytest.mark.parametrize(
    "trouble", ["down", "", httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), ValueError("not text")]
)
def test_a_pod_that_does_not_answer_is_silent_and_loses_nothing(trouble: str | Exception) -> None:
    pods = Pods(a=100, b=100)
    scraper = fresh(pods)
    scrape(scraper, watched(x="a", y="b"))
    pods.answers |= {"a": 110, "b": trouble}
    window = scrape(scraper, watched(x="a", y="b"))
    assert (window.requests, window.pods, window.unreachable_pods) == (10, 1, 1)
    pods.answers["b"] = 130
    assert scrape(scraper, watched(x="a", y="b")).requests == 40


def test_metrics_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_scraper, "MAX_BYTES", 1000)
    scraper = fresh(lambda _request: httpx.Response(200, text=metrics(1) * 100))
    assert scrape(scraper, watched(x="a")).unreachable_pods == 1


def test_a_pod_that_never_ends_to_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_scraper, "TIMEOUT_SECONDS", 0.1)

    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        return httpx.Response(200)

    assert scrape(MetricsScraper(transport=httpx.MockTransport(never)), watched(x="a")).unreachable_pods == 1


def test_what_is_not_watched_is_forgotten() -> None:
    pods = Pods(a=100)
    scraper = fresh(pods)
    scrape(scraper, watched(x="a"))
    assert asyncio.run(scraper.windows("studio/shapes", [])) == {}
    pods.answers["a"] = 200
    assert scrape(scraper, watched(x="a")).requests == 0
    scraper.forget("studio/shapes")
    pods.answers["a"] = 300
    assert scrape(scraper, watched(x="a")).requests == 0


def test_pipelines_do_not_see_each_other() -> None:
    pods = Pods(a=100)
    scraper = fresh(pods)
    scrape(scraper, watched(x="a"))
    asyncio.run(scraper.windows("other/shapes", [watched("1", x="a")]))
    pods.answers["a"] = 105
    assert scrape(scraper, watched(x="a")).requests == 5


def test_addresses_of_the_other_kind_are_written_in_brackets() -> None:
    urls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(200, text=metrics(1))

    scrape(fresh(answer), watched(x="fd00::1"))
    assert urls == ["http://[fd00::1]:8002/metrics"]
