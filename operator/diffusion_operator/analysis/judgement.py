"""From two windows to a verdict."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from diffusion_operator.analysis.chance import chance_of_failures
from diffusion_operator.analysis.verdict import ERROR_RATIO, INCONCLUSIVE, LATENCY, PASSED, Limits, Outcome, Verdict
from diffusion_operator.analysis.window import Traffic, Window

# A difference that chance makes this rarely is none of chance.
_RARE = 0.05
# Below so many requests the slowest twentieth are one or two: then the median has to agree.
_TAIL_REQUESTS = 60


@dataclass(frozen=True)
class _Finding:
    """One aspect: what it means by itself, and the sentence about it."""

    outcome: Outcome
    reason: str
    message: str
    numbers: dict[str, float]


def judge(limits: Limits, stable: Window, canary: Window) -> Verdict:
    """Whether the canary was as good as the stable revision at the same time.

    Requests of each ensemble are compared with those of the same ensemble, so that a canary that was asked for longer
    tiers is not blamed for it. Failures first, since those who fail fast look quick.

    Args:
        limits: how much worse it may be.
        stable: what the stable revision did.
        canary: what the canary did at the same time.
    """
    counts = {"canaryRequests": canary.requests, "stableRequests": stable.requests}
    lacking = _lacking(limits, stable, canary)
    if lacking:
        return Verdict("Inconclusive", INCONCLUSIVE, lacking, counts)
    findings = [_errors(limits, stable, canary), _latency(limits, stable, canary), _step(limits, stable, canary)]
    numbers = {name: round(value, 6) for item in findings for name, value in item.numbers.items()}
    for outcome in ("Fail", "Inconclusive"):
        for item in findings:
            if item.outcome == outcome:
                return Verdict(item.outcome, item.reason, item.message, counts | numbers)
    message = f"{_requests(canary)}: " + "; ".join(item.message for item in findings if item.message) + "."
    return Verdict("Pass", PASSED, message, counts | numbers)


def _lacking(limits: Limits, stable: Window, canary: Window) -> str:
    """What is missing for a verdict; empty when there is enough."""
    for name, window in (("canary", canary), ("stable revision", stable)):
        if window.requests < limits.min_requests:
            silent = f" {window.silent} of its pods did not tell their metrics." if window.silent else ""
            return f"The {name} had {window.requests:.0f} of {limits.min_requests} requests that are needed.{silent}"
    return ""


def _errors(limits: Limits, stable: Window, canary: Window) -> _Finding:
    expected = _expected(stable, canary)
    share, theirs = canary.failures / canary.requests, expected / canary.requests
    numbers = {"canaryErrorRatio": share, "stableErrorRatio": theirs}
    message = (
        f"{share:.1%} of requests failed ({canary.failures:.0f} of {canary.requests:.0f}), {theirs:.1%} on the stable"
        f" revision ({stable.failures:.0f} of {stable.requests:.0f}); at most {limits.max_error_ratio:.1%} more"
        " is allowed"
    )
    if share - theirs <= limits.max_error_ratio:
        return _Finding("Pass", PASSED, message, numbers)
    chance = chance_of_failures(
        canary.failures, canary.requests, (theirs * stable.requests, stable.requests), limits.max_error_ratio
    )
    if chance < _RARE:
        return _Finding("Fail", ERROR_RATIO, f"{message}.", numbers)
    return _Finding("Inconclusive", INCONCLUSIVE, f"{message}; so few may be chance.", numbers)


def _expected(stable: Window, canary: Window) -> float:
    """Failures that the stable revision would have had with the canary's requests."""
    overall = stable.failures / stable.requests
    shares = {name: item.failed / item.requests for name, item in stable.ensembles.items() if item.requests}
    return sum(item.requests * shares.get(name, overall) for name, item in canary.ensembles.items())


def _latency(limits: Limits, stable: Window, canary: Window) -> _Finding:
    shared = [name for name in canary.ensembles if name in stable.ensembles]
    pairs = [(stable.ensembles[name], canary.ensembles[name]) for name in shared]
    pairs = [(theirs, ours) for theirs, ours in pairs if theirs.succeeded and ours.succeeded]
    enough = min(sum(theirs.succeeded for theirs, _ in pairs), sum(ours.succeeded for _, ours in pairs))
    if enough < limits.min_requests:
        return _Finding(
            "Inconclusive",
            INCONCLUSIVE,
            f"Only {enough:.0f} of {limits.min_requests} needed requests succeeded on both sides and went to the same"
            " ensembles.",
            {},
        )
    usual = _ratio(pairs, lambda item: item.p50) or _ratio(pairs, _mean) or 1.0
    slowest = _ratio(pairs, lambda item: item.p95) or usual
    numbers = {"p50Ratio": usual, "p95Ratio": slowest} | _seconds(stable, canary)
    message = f"p95 latency is {slowest:.2f} times the stable revision's, p50 {usual:.2f} times"
    limit = limits.max_p95_ratio
    if slowest <= limit:
        return _Finding("Pass", PASSED, f"{message} (up to {limit:g} is allowed)", numbers)
    message += f"; {limit:g} times is allowed ({_told(numbers)})"
    if enough < _TAIL_REQUESTS and usual <= limit:
        return _Finding("Inconclusive", INCONCLUSIVE, f"{message}; so few requests may be chance.", numbers)
    return _Finding("Fail", LATENCY, f"{message}.", numbers)


def _ratio(pairs: list[tuple[Traffic, Traffic]], of: Callable[[Traffic], float | None]) -> float | None:
    """Geometric mean over ensembles, each weighed by how well it is known; None where nothing is known."""
    total = weight = 0.0
    for theirs, ours in pairs:
        first, second = of(theirs), of(ours)
        if first and second:
            known = theirs.succeeded * ours.succeeded / (theirs.succeeded + ours.succeeded)
            total, weight = total + known * math.log(second / first), weight + known
    return math.exp(total / weight) if weight else None


def _mean(item: Traffic) -> float | None:
    return item.seconds / item.succeeded if item.succeeded else None


def _seconds(stable: Window, canary: Window) -> dict[str, float]:
    total = {"stable": stable.total, "canary": canary.total}
    found = {f"{side}P50Seconds": item.p50 for side, item in total.items()}
    found |= {f"{side}P95Seconds": item.p95 for side, item in total.items()}
    return {name: value for name, value in found.items() if value is not None}


def _told(numbers: dict[str, float]) -> str:
    parts = [
        f"{side} {numbers[f'{side}P95Seconds']:.3g} s"
        for side in ("canary", "stable")
        if f"{side}P95Seconds" in numbers
    ]
    return ", ".join(parts) or "means, since the servers tell no quantiles"


def _step(limits: Limits, stable: Window, canary: Window) -> _Finding:
    """Denoiser steps. A call takes longer, and a picture's part of it less long, the more pictures share it.

    Sides with different load have different batches: the smaller of both ratios is one that batches cannot explain.
    """
    ours, theirs = canary.step_seconds, stable.step_seconds
    if not ours or not theirs:
        return _Finding("Pass", PASSED, "", {})
    batches = (canary.mean_batch or 1.0, stable.mean_batch or 1.0)
    ratio = min(ours / theirs, ours / theirs * batches[1] / batches[0])
    numbers = {
        "stepRatio": ratio,
        "canaryStepSeconds": ours,
        "stableStepSeconds": theirs,
        "canaryMeanBatch": batches[0],
        "stableMeanBatch": batches[1],
    }
    limit = limits.max_step_latency_ratio
    message = f"a denoiser step takes {ratio:.2f} times as long"
    if ratio <= limit:
        return _Finding("Pass", PASSED, f"{message} (up to {limit:g} is allowed)", numbers)
    seconds = f"canary {ours:.3g} s at mean batch {batches[0]:.1f}, stable {theirs:.3g} s at {batches[1]:.1f}"
    return _Finding("Fail", LATENCY, f"A{message[1:]}; {limit:g} times is allowed ({seconds}).", numbers)


def _requests(canary: Window) -> str:
    return f"Of {canary.requests:.0f} requests to the canary {canary.requests - canary.failures:.0f} were answered"
