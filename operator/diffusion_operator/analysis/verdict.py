"""The verdict of an analysis."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["Pass", "Fail", "Inconclusive"]

PASSED = "Passed"
ERROR_RATIO = "ErrorRatio"
LATENCY = "Latency"
INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True)
class Verdict:
    """Whether a canary is good enough.

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
