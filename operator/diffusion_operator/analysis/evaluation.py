"""From two windows to a verdict."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from diffusion_contract.spec.rollout import Analysis
from diffusion_operator.analysis.chance import chance_of_failures
from diffusion_operator.analysis.counters import EnsembleStats
from diffusion_operator.analysis.verdict import Verdict, VerdictReason
from diffusion_operator.analysis.window import Window

# A difference that chance makes this rarely is none of chance.
_RARE = 0.05
# Below so many requests the slowest twentieth are one or two: then the median has to agree.
_TAIL_REQUESTS = 60


def evaluate(limits: Analysis, stable: Window, canary: Window) -> Verdict:
    """Whether the canary was as good as the stable revision at the same time.

    Requests of each ensemble are compared with those of the same ensemble, so that a canary that was asked for longer
    tiers is not blamed for it. Failures first, since those who fail fast look quick.

    Args:
        limits: how much worse it may be; of the spec.
        stable: window of the stable revision.
        canary: window of the canary at the same time.
    """
    counts = {"canaryRequests": canary.requests, "stableRequests": stable.requests}
    shortage = _shortage(limits, stable, canary)
    if shortage:
        return Verdict("Inconclusive", VerdictReason.INCONCLUSIVE, shortage, counts)
    verdicts = [verdict_of(limits, stable, canary) for verdict_of in (_error_verdict, _latency_verdict, _step_verdict)]
    numbers = {name: round(value, 6) for verdict in verdicts for name, value in verdict.numbers.items()}
    for outcome in ("Fail", "Inconclusive"):
        for verdict in verdicts:
            if verdict.outcome == outcome:
                return replace(verdict, numbers=counts | numbers)
    answered = canary.requests - canary.failures
    message = f"Of {canary.requests:.0f} requests to the canary {answered:.0f} were answered: "
    message += "; ".join(verdict.message for verdict in verdicts if verdict.message) + "."
    return Verdict("Pass", VerdictReason.PASSED, message, counts | numbers)


def _shortage(limits: Analysis, stable: Window, canary: Window) -> str:
    """What is missing for a verdict; empty when there is enough."""
    for name, window in (("canary", canary), ("stable revision", stable)):
        if window.requests < limits.min_requests:
            unreachable = window.unreachable_pods
            details = f" {unreachable} of its pods did not report their metrics." if unreachable else ""
            return f"The {name} had {window.requests:.0f} of {limits.min_requests} requests that are needed.{details}"
    return ""


def _error_verdict(limits: Analysis, stable: Window, canary: Window) -> Verdict:
    expected = _expected_failures(stable, canary)
    canary_ratio, stable_ratio = canary.failures / canary.requests, expected / canary.requests
    numbers = {"canaryErrorRatio": canary_ratio, "stableErrorRatio": stable_ratio}
    message = (
        f"{canary_ratio:.1%} of requests failed ({canary.failures:.0f} of {canary.requests:.0f}), {stable_ratio:.1%}"
        f" on the stable revision ({stable.failures:.0f} of {stable.requests:.0f}); at most"
        f" {limits.max_error_ratio:.1%} more is allowed"
    )
    if canary_ratio - stable_ratio <= limits.max_error_ratio:
        return Verdict("Pass", VerdictReason.PASSED, message, numbers)
    chance = chance_of_failures(
        canary.failures, canary.requests, (stable_ratio * stable.requests, stable.requests), limits.max_error_ratio
    )
    if chance < _RARE:
        return Verdict("Fail", VerdictReason.ERROR_RATIO, f"{message}.", numbers)
    return Verdict("Inconclusive", VerdictReason.INCONCLUSIVE, f"{message}; so few may be chance.", numbers)


def _expected_failures(stable: Window, canary: Window) -> float:
    """Failures that the stable revision would have had with the canary's requests."""
    overall = stable.failures / stable.requests
    shares = {name: item.failed / item.requests for name, item in stable.ensembles.items() if item.requests}
    return sum(item.requests * shares.get(name, overall) for name, item in canary.ensembles.items())


def _latency_verdict(limits: Analysis, stable: Window, canary: Window) -> Verdict:
    shared = [name for name in canary.ensembles if name in stable.ensembles]
    pairs = [(stable.ensembles[name], canary.ensembles[name]) for name in shared]
    pairs = [(old, new) for old, new in pairs if old.succeeded and new.succeeded]
    enough = min(sum(old.succeeded for old, _ in pairs), sum(new.succeeded for _, new in pairs))
    if enough < limits.min_requests:
        return Verdict(
            "Inconclusive",
            VerdictReason.INCONCLUSIVE,
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
        return Verdict("Pass", VerdictReason.PASSED, f"{message} (up to {limit:g} is allowed)", numbers)
    message += f"; {limit:g} times is allowed ({_p95_text(numbers)})"
    if enough < _TAIL_REQUESTS and usual <= limit:
        return Verdict(
            "Inconclusive", VerdictReason.INCONCLUSIVE, f"{message}; so few requests may be chance.", numbers
        )
    return Verdict("Fail", VerdictReason.LATENCY, f"{message}.", numbers)


def _ratio(
    pairs: list[tuple[EnsembleStats, EnsembleStats]], of: Callable[[EnsembleStats], float | None]
) -> float | None:
    """Geometric mean over ensembles, each weighed by how well it is known; None where nothing is known."""
    total = weight = 0.0
    for old, new in pairs:
        first, second = of(old), of(new)
        if first and second:
            certainty = old.succeeded * new.succeeded / (old.succeeded + new.succeeded)
            total, weight = total + certainty * math.log(second / first), weight + certainty
    return math.exp(total / weight) if weight else None


def _mean(item: EnsembleStats) -> float | None:
    return item.seconds / item.succeeded if item.succeeded else None


def _seconds(stable: Window, canary: Window) -> dict[str, float]:
    total = {"stable": stable.total, "canary": canary.total}
    quantiles = {f"{side}P50Seconds": traffic.p50 for side, traffic in total.items()}
    quantiles |= {f"{side}P95Seconds": traffic.p95 for side, traffic in total.items()}
    return {name: value for name, value in quantiles.items() if value is not None}


def _p95_text(numbers: Mapping[str, float]) -> str:
    texts = [
        f"{side} {numbers[f'{side}P95Seconds']:.3g} s"
        for side in ("canary", "stable")
        if f"{side}P95Seconds" in numbers
    ]
    return ", ".join(texts) or "means, since the servers report no quantiles"


def _step_verdict(limits: Analysis, stable: Window, canary: Window) -> Verdict:
    """Denoiser steps. A call takes longer, and an image's part of it less long, the more images share it.

    Sides with different load have different batches: the smaller of both ratios is one that batches cannot explain.
    """
    canary_seconds, stable_seconds = canary.step_seconds, stable.step_seconds
    if not canary_seconds or not stable_seconds:
        return Verdict("Pass", VerdictReason.PASSED, "")
    batches = (canary.mean_batch or 1.0, stable.mean_batch or 1.0)
    ratio = canary_seconds / stable_seconds * min(1.0, batches[1] / batches[0])
    numbers = {
        "stepRatio": ratio,
        "canaryStepSeconds": canary_seconds,
        "stableStepSeconds": stable_seconds,
        "canaryMeanBatch": batches[0],
        "stableMeanBatch": batches[1],
    }
    limit = limits.max_step_latency_ratio
    message = f"a denoiser step takes {ratio:.2f} times as long"
    if ratio <= limit:
        return Verdict("Pass", VerdictReason.PASSED, f"{message} (up to {limit:g} is allowed)", numbers)
    details = f"canary {canary_seconds:.3g} s at mean batch {batches[0]:.1f}"
    details += f", stable {stable_seconds:.3g} s at {batches[1]:.1f}"
    return Verdict("Fail", VerdictReason.LATENCY, f"A{message[1:]}; {limit:g} times is allowed ({details}).", numbers)
