"""A canary is judged by what Triton counted on both sides, ensemble by ensemble; too little is never a verdict."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_contract.spec.rollout import Analysis
from diffusion_operator.analysis.counters import Counters, EnsembleStats, StepCounters, parse_counters
from diffusion_operator.analysis.evaluation import evaluate
from diffusion_operator.analysis.verdict import Verdict
from diffusion_operator.analysis.window import PodHistory, Window, summarize

LIMITS = Analysis()
SHORT, LONG = "generate_4_pipeline", "generate_20_pipeline"


def traffic(requests: int, seconds: float = 0.1, failed: int = 0, tail: float = 1.5) -> EnsembleStats:
    succeeded = requests - failed
    return EnsembleStats(succeeded, failed, succeeded * seconds, seconds, seconds * tail)


def window(step: float = 0.02, batch: float = 1.0, **ensembles: EnsembleStats) -> Window:
    names = {"short": SHORT, "long": LONG}
    steps = 4 * sum(item.succeeded for item in ensembles.values())
    return Window(
        {names[name]: item for name, item in ensembles.items()},
        StepCounters(steps, steps * step, steps, steps / batch),
        pods=1,
    )


def verdict(stable: Window, canary: Window) -> Verdict:
    return evaluate(LIMITS, stable, canary)


GOOD = window(short=traffic(100))


@pytest.mark.parametrize(
    ("name", "stable", "canary", "outcome", "reason"),
    [
        ("the same", GOOD, GOOD, "Pass", "Passed"),
        ("faster", GOOD, window(short=traffic(50, 0.05)), "Pass", "Passed"),
        ("nobody asked the canary", GOOD, Window(), "Inconclusive", "Inconclusive"),
        ("nobody asked the stable revision", Window(), GOOD, "Inconclusive", "Inconclusive"),
        ("too few", GOOD, window(short=traffic(19)), "Inconclusive", "Inconclusive"),
        ("metrics gone", Window(unreachable_pods=2), Window(unreachable_pods=1), "Inconclusive", "Inconclusive"),
        ("half of it fails", GOOD, window(short=traffic(20, failed=10)), "Fail", "ErrorRatio"),
        ("all of it fails", GOOD, window(short=traffic(20, failed=20)), "Fail", "ErrorRatio"),
        ("one failure of twenty", GOOD, window(short=traffic(20, failed=1)), "Inconclusive", "Inconclusive"),
        ("one failure of five hundred", GOOD, window(short=traffic(500, failed=1)), "Pass", "Passed"),
        (
            "both fail alike",
            window(short=traffic(200, failed=60)),
            window(short=traffic(60, failed=18)),
            "Pass",
            "Passed",
        ),
        ("twice as slow", GOOD, window(short=traffic(30, 0.2)), "Fail", "Latency"),
        ("slow and failing", GOOD, window(short=traffic(40, 0.3, failed=20)), "Fail", "ErrorRatio"),
        ("one slow of twenty", GOOD, window(short=traffic(20, tail=4)), "Inconclusive", "Inconclusive"),
        ("slow tail", GOOD, window(short=traffic(200, tail=4)), "Fail", "Latency"),
        ("slow steps", GOOD, window(step=0.03, short=traffic(50)), "Fail", "Latency"),
        ("larger batches", GOOD, window(step=0.1, batch=8, short=traffic(50)), "Pass", "Passed"),
        ("smaller batches", window(step=0.1, batch=8, short=traffic(50)), GOOD, "Pass", "Passed"),
        ("other ensembles", GOOD, window(long=traffic(50, 0.5)), "Inconclusive", "Inconclusive"),
        (
            "a new ensemble fails",
            GOOD,
            window(short=traffic(50), long=traffic(20, 0.5, failed=20)),
            "Fail",
            "ErrorRatio",
        ),
    ],
)
def test_the_verdict(name: str, stable: Window, canary: Window, outcome: str, reason: str) -> None:
    actual = verdict(stable, canary)
    assert (name, actual.outcome, actual.reason) == (name, outcome, reason), actual.message


def test_a_longer_tier_is_no_slower_canary() -> None:
    stable = window(short=traffic(180, 0.1), long=traffic(20, 0.5))
    canary = window(short=traffic(20, 0.1), long=traffic(180, 0.5))
    actual = verdict(stable, canary)
    assert actual.outcome == "Pass"
    assert actual.numbers["p95Ratio"] == pytest.approx(1.0)
    # Without telling ensembles apart the canary would look several times as slow.
    assert actual.numbers["canaryP50Seconds"] > 3 * actual.numbers["stableP50Seconds"]


def test_errors_of_a_tier_that_fails_on_both_sides_are_not_the_canarys() -> None:
    stable = window(short=traffic(180), long=traffic(40, failed=20))
    canary = window(short=traffic(40), long=traffic(180, failed=90))
    assert verdict(stable, canary).outcome == "Pass"


def test_a_slow_rare_tier_is_not_hidden_by_a_quick_frequent_one() -> None:
    stable = window(short=traffic(500, 0.1), long=traffic(500, 0.5))
    canary = window(short=traffic(500, 0.1), long=traffic(500, 1.5))
    assert verdict(stable, canary).reason == "Latency"


def test_the_message_says_the_numbers() -> None:
    failed = verdict(GOOD, window(short=traffic(20, failed=10)))
    assert "50.0% of requests failed (10 of 20), 0.0% on the stable revision (0 of 100)" in failed.message
    assert "at most 1.0% more is allowed" in failed.message
    slow = verdict(GOOD, window(short=traffic(100, 0.2)))
    assert "2.00 times" in slow.message
    assert "1.2 times is allowed (canary 0.3 s, stable 0.15 s)" in slow.message
    few = verdict(GOOD, window(short=traffic(3)))
    assert few.message == "The canary had 3 of 20 requests that are needed."
    assert "2 of its pods did not report" in verdict(GOOD, Window(unreachable_pods=2)).message


def test_servers_that_tell_no_quantiles_are_compared_by_their_means() -> None:
    plain = replace(traffic(100), p50=None, p95=None)
    slow = replace(traffic(100, 0.2), p50=None, p95=None)
    assert verdict(window(short=plain), window(short=slow)).reason == "Latency"
    assert verdict(window(short=plain), window(short=plain)).outcome == "Pass"


amounts = st.integers(0, 400)
seconds = st.floats(1e-3, 100)


@st.composite
def traffics(draw: st.DrawFn) -> EnsembleStats:
    succeeded, failed, mean = draw(amounts), draw(amounts), draw(seconds)
    has_latencies = draw(st.booleans()) and succeeded > 0
    return EnsembleStats(
        succeeded, failed, succeeded * mean, mean if has_latencies else None, mean * 2 if has_latencies else None
    )


@st.composite
def windows(draw: st.DrawFn) -> Window:
    ensembles = draw(st.dictionaries(st.sampled_from([SHORT, LONG, "img2img_4_pipeline"]), traffics()))
    steps, calls = draw(amounts), draw(amounts)
    return Window(ensembles, StepCounters(steps, draw(seconds), steps, calls), 1, draw(st.integers(0, 2)))


@given(windows(), windows())
def test_any_windows_have_a_verdict_with_finite_numbers(stable: Window, canary: Window) -> None:
    actual = verdict(stable, canary)
    assert all(math.isfinite(value) for value in actual.numbers.values())
    assert actual.message
    if min(stable.requests, canary.requests) < LIMITS.min_requests:
        assert actual.outcome == "Inconclusive"


@given(windows())
def test_a_revision_is_never_worse_than_itself(window: Window) -> None:
    assert verdict(window, window).outcome != "Fail"


@given(windows(), windows(), st.floats(1.5, 10))
@settings(deadline=None)  # a bound on one example would measure the load of the machine
def test_a_slower_canary_is_never_judged_better(stable: Window, canary: Window, factor: float) -> None:
    rank = {"Fail": 0, "Inconclusive": 1, "Pass": 2}
    slower = replace(
        canary,
        ensembles={
            name: replace(
                item,
                seconds=item.seconds * factor,
                p50=item.p50 and item.p50 * factor,
                p95=item.p95 and item.p95 * factor,
            )
            for name, item in canary.ensembles.items()
        },
    )
    assert rank[verdict(stable, slower).outcome] <= rank[verdict(stable, canary).outcome]


@given(st.lists(windows(), max_size=5))
def test_a_sum_over_pods_counts_every_request_once(parts: list[Window]) -> None:
    total = summarize(parts)
    assert total.requests == sum(item.requests for item in parts)
    assert total.failures == sum(item.failures for item in parts)
    pod_p95s = [item.p95 for part in parts for item in part.ensembles.values() if item.p95 is not None]
    total_p95s = [item.p95 for item in total.ensembles.values() if item.p95 is not None]
    assert all(min(pod_p95s) <= value * 1.0001 and value <= max(pod_p95s) * 1.0001 for value in total_p95s)


def counters(requests: int, failed: int = 0, p95: float | None = 0.2) -> Counters:
    return Counters(
        {SHORT: EnsembleStats(requests, failed, requests * 0.1, p95 and p95 / 2, p95)},
        StepCounters(requests * 4, requests * 0.08, requests * 4, requests * 2),
    )


def test_a_window_is_what_came_after_its_first_reading() -> None:
    track = PodHistory(counters(100)).advance(counters(130, failed=2))
    assert track.total.requests == 32
    assert track.total.failures == 2
    assert track.total.ensembles[SHORT].seconds == pytest.approx(3.0)
    assert track.total.step_seconds == pytest.approx(0.02)
    assert track.total.mean_batch == pytest.approx(2.0)


def test_a_server_that_started_anew_counts_from_zero_and_loses_nothing() -> None:
    track = PodHistory(counters(100)).advance(counters(130)).advance(counters(7)).advance(counters(9))
    assert track.total.requests == 30 + 7 + 2


def test_an_ensemble_that_was_not_asked_is_not_in_the_window() -> None:
    assert PodHistory(counters(10)).advance(counters(10)).total.ensembles == {}


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=20))
def test_whatever_restarts_every_seen_request_is_counted_once(life: list[tuple[int, bool]]) -> None:
    track, count, expected = PodHistory(counters(5)), 5, 0
    for served_requests, restarted in life:
        # A server that has counted as much again between two readings cannot be told from one that went on.
        expected, count = (
            expected + served_requests,
            served_requests if restarted and served_requests < count else count + served_requests,
        )
        track = track.advance(counters(count))
    assert track.total.requests == expected


def test_quantiles_are_weighed_by_requests() -> None:
    track = PodHistory(counters(0)).advance(counters(90, p95=0.1)).advance(counters(100, p95=1.1))
    assert track.total.ensembles[SHORT].p95 == pytest.approx(0.2)


TEXT = """# HELP nv_inference_request_success Number
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="5_denoiser",version="1"} 64
nv_inference_request_success{model="generate_4_pipeline",version="1"} 11
nv_inference_request_success{model="generate_4_pipeline",version="2"} 1
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="generate_4_pipeline",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="generate_4_pipeline",reason="REJECTED",version="1"} 1
nv_inference_request_failure{model="generate_4_pipeline",reason="CANCELED",version="1"} 9
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="generate_4_pipeline",version="1"} 3000000
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="5_denoiser",version="1"} 640000
# TYPE nv_inference_count counter
nv_inference_count{model="5_denoiser",version="1"} 72
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="5_denoiser",version="1"} 53
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{model="generate_4_pipeline",version="1"} 11
nv_inference_request_summary_us_sum{model="generate_4_pipeline",version="1"} 3000000
nv_inference_request_summary_us{model="generate_4_pipeline",version="1",quantile="0.5"} 121511
nv_inference_request_summary_us{model="generate_4_pipeline",version="1",quantile="0.95"} 385422
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
"""


def test_tritons_words_are_read() -> None:
    reading = parse_counters(TEXT)
    [(name, ensemble)] = reading.ensembles.items()
    assert (name, ensemble.succeeded, ensemble.failed) == (SHORT, 12, 3)
    assert (ensemble.seconds, ensemble.p50, ensemble.p95) == pytest.approx((3.0, 0.121511, 0.385422))
    assert (reading.steps.requests, reading.steps.samples, reading.steps.calls) == (64, 72, 53)
    assert reading.steps.seconds == pytest.approx(0.64)


@pytest.mark.parametrize("value", ["Nan", "NaN", "+Inf"])
def test_a_quantile_of_nothing_is_none(value: str) -> None:
    assert parse_counters(TEXT.replace("385422", value)).ensembles[SHORT].p95 is None


@pytest.mark.parametrize(
    "text", ["", "<html>", "a{", "x 1\n", TEXT.replace(" 64\n", " NaN\n"), TEXT.replace(" 64\n", " -1\n"), 'a{b="c} 1']
)
def test_what_is_not_triton_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any message is right
        parse_counters(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_counters(f"{TEXT}{text}")
    except ValueError:
        return
