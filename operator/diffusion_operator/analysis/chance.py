"""Whether a difference in failures can be chance."""

import math

_GRID = 50
# Jeffreys' prior of a share.
_PRIOR = 0.5


def chance_of_failures(failures: float, requests: float, stable: tuple[float, float], margin: float) -> float:
    """How likely so many failures, or more, are for a revision that is within the margin of the stable one.

    The stable's true share of failures is not known either: its posterior, a Beta distribution, is averaged over.

    Args:
        failures: of the canary.
        requests: of the canary.
        stable: failures and requests of the stable revision.
        margin: by which the canary's share may be larger.

    Returns:
        A probability, 0 to 1.
    """
    if failures <= 0 or requests <= 0:
        return 1.0
    stable_failures, stable_requests = stable
    shares = [(index + 0.5) / _GRID for index in range(_GRID)]
    # Squared, so that the grid is dense where shares of failures are: near zero.
    densities = [
        math.exp(
            _log_beta(share**2, stable_failures + _PRIOR, max(0.0, stable_requests - stable_failures) + _PRIOR)
            + math.log(2 * share)
        )
        for share in shares
    ]
    tails = [_upper_tail(failures, requests, min(1.0, share**2 + margin)) for share in shares]
    total = sum(densities)
    return sum(weight * tail for weight, tail in zip(densities, tails, strict=True)) / total if total else 0.0


def _log_beta(share: float, first: float, second: float) -> float:
    log_norm = math.lgamma(first + second) - math.lgamma(first) - math.lgamma(second)
    return log_norm + (first - 1) * math.log(share) + (second - 1) * math.log1p(-share)


def _upper_tail(failures: float, requests: float, share: float) -> float:
    """Chance of at least so many failures: upper tail of the binomial distribution."""
    count, minimum = round(requests), round(failures)
    if share >= 1:
        return 1.0
    # Each term from the one before: ways of choosing, times the odds.
    log_odds, term, below = math.log(share) - math.log1p(-share), count * math.log1p(-share), 0.0
    for successes in range(min(minimum, count + 1)):
        below += math.exp(term)
        term += math.log((count - successes) / (successes + 1)) + log_odds if successes < count else 0.0
    return min(1.0, max(0.0, 1.0 - below))
