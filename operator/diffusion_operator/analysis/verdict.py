"""The verdict of an analysis."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Outcome = Literal["Pass", "Fail", "Inconclusive"]


class VerdictReason(StrEnum):
    """Reasons that the operator gives for a verdict."""

    PASSED = "Passed"
    INCONCLUSIVE = "Inconclusive"
    ERROR_RATIO = "ErrorRatio"
    LATENCY = "Latency"
    IMAGE_QUALITY = "ImageQuality"
    NOT_READY = "NotReady"
    ABORTED = "Aborted"


@dataclass(frozen=True)
class Verdict:
    """Whether a canary is good enough.

    Attributes:
        outcome: Inconclusive means: wait for more.
        reason: a VerdictReason, or what an annotation says.
        message: one or two sentences with the numbers, for people.
        numbers: what was compared; ratios and counts, latencies in seconds.
    """

    outcome: Outcome
    reason: str
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
