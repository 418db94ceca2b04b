"""What is judged by, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Outcome = Literal["Pass", "Fail", "Inconclusive"]

PASSED = "Passed"
ERROR_RATIO = "ErrorRatio"
LATENCY = "Latency"
INCONCLUSIVE = "Inconclusive"


class Limits(Protocol):
    """How much worse a canary may be; `spec.rollout.analysis` has these fields."""

    @property
    def min_requests(self) -> int:
        """Requests that each side must have answered."""
        ...

    @property
    def max_error_ratio(self) -> float:
        """By how much the canary's share of failed requests may exceed the stable's, 0 to 1."""
        ...

    @property
    def max_p95_ratio(self) -> float:
        """How many times as long the canary's requests may take."""
        ...

    @property
    def max_step_latency_ratio(self) -> float:
        """How many times as long the canary's denoiser steps may take."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What the numbers say.

    Attributes:
        outcome: Inconclusive means: wait for more.
        reason: ErrorRatio or Latency of a failure; Passed or Inconclusive.
        message: one or two sentences with the numbers, for people.
        numbers: what was compared; ratios and counts, latencies in seconds.
    """

    outcome: Outcome
    reason: str
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
