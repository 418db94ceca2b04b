"""What a revision did during one step of a rollout, summed over its pods."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from diffusion_operator.analysis.counters import Counters, EnsembleCounters, StepCounters


@dataclass(frozen=True)
class EnsembleStats:
    """One ensemble's requests within the window.

    Attributes:
        succeeded: requests that were answered.
        failed: requests that were not; those that a client gave up are left out.
        seconds: sum over the answered ones.
        p50: seconds; mean over pods and readings, weighed by requests. None where Triton reports none.
        p95: same.
    """

    succeeded: float = 0.0
    failed: float = 0.0
    seconds: float = 0.0
    p50: float | None = None
    p95: float | None = None

    @property
    def requests(self) -> float:
        """All of them."""
        return self.succeeded + self.failed

    def __add__(self, other: Self) -> "EnsembleStats":
        return EnsembleStats(
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.seconds + other.seconds,
            _weighted_mean(self.p50, self.succeeded, other.p50, other.succeeded),
            _weighted_mean(self.p95, self.succeeded, other.p95, other.succeeded),
        )


@dataclass(frozen=True)
class Window:
    """One revision's requests within a step.

    Attributes:
        ensembles: by name; only those that were asked.
        steps: what the denoiser did.
        pods: that were read.
        unreachable_pods: pods that should have been read and did not answer at the last reading.
    """

    ensembles: Mapping[str, EnsembleStats] = field(default_factory=dict)
    steps: StepCounters = field(default_factory=StepCounters)
    pods: int = 0
    unreachable_pods: int = 0

    @property
    def requests(self) -> float:
        """Of all ensembles."""
        return sum(item.requests for item in self.ensembles.values())

    @property
    def failures(self) -> float:
        """Of all ensembles."""
        return sum(item.failed for item in self.ensembles.values())

    @property
    def total(self) -> EnsembleStats:
        """All ensembles as one."""
        return sum(self.ensembles.values(), EnsembleStats())

    @property
    def step_seconds(self) -> float | None:
        """Mean seconds of a denoiser step as a request sees it; None without one."""
        return self.steps.seconds / self.steps.requests if self.steps.requests else None

    @property
    def mean_batch(self) -> float | None:
        """Mean images in one call of the denoiser; None without one."""
        return self.steps.samples / self.steps.calls if self.steps.calls else None


@dataclass(frozen=True)
class ScrapeTarget:
    """One revision on one target, whose pods' metrics are read.

    Attributes:
        step: names the step of the rollout; with another one the window restarts.
        pods: UID to IP address of those that are Ready.
    """

    target: str
    revision: str
    step: str
    pods: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """Of the revision's window."""
        return self.target, self.revision


@dataclass(frozen=True)
class PodHistory:
    """One pod: its last counters, and what it has done since the first ones."""

    last_counters: Counters
    total: Window = field(default_factory=Window)

    def advance(self, now: Counters) -> "PodHistory":
        """With a newer reading. Counters that fell are those of a server that restarted: all of them are new."""
        before = Counters() if _restarted(self.last_counters, now) else self.last_counters
        return PodHistory(now, summarize([self.total, _difference(before, now)]))


def summarize(windows: Iterable[Window]) -> Window:
    """The sum of several pods, or of several stretches of time."""
    ensembles: dict[str, EnsembleStats] = {}
    steps, pods, unreachable_pods = StepCounters(), 0, 0
    for window in windows:
        for name, traffic in window.ensembles.items():
            ensembles[name] = ensembles.get(name, EnsembleStats()) + traffic
        steps = _added(steps, window.steps)
        pods, unreachable_pods = pods + window.pods, unreachable_pods + window.unreachable_pods
    return Window(ensembles, steps, pods, unreachable_pods)


def _weighted_mean(first: float | None, weight: float, second: float | None, other: float) -> float | None:
    """Mean of what is known. A quantile of a sum is not known from quantiles; between readings it hardly moves."""
    if first is None or weight == 0:
        return second if other > 0 else first
    if second is None or other == 0:
        return first
    return (first * weight + second * other) / (weight + other)


def _restarted(before: Counters, now: Counters) -> bool:
    if now.steps.requests < before.steps.requests or now.steps.seconds < before.steps.seconds:
        return True
    return any(_is_reset(old, now.ensembles.get(name)) for name, old in before.ensembles.items())


def _is_reset(old: EnsembleCounters, new: EnsembleCounters | None) -> bool:
    new_stats = new or EnsembleCounters()
    return new_stats.succeeded < old.succeeded or new_stats.failed < old.failed or new_stats.seconds < old.seconds


def _difference(before: Counters, now: Counters) -> Window:
    none = EnsembleCounters()
    differences = {name: _traffic(before.ensembles.get(name, none), new) for name, new in now.ensembles.items()}
    steps = StepCounters(
        now.steps.requests - before.steps.requests,
        now.steps.seconds - before.steps.seconds,
        max(0.0, now.steps.samples - before.steps.samples),
        max(0.0, now.steps.calls - before.steps.calls),
    )
    return Window({name: traffic for name, traffic in differences.items() if traffic.requests}, steps)


def _traffic(old: EnsembleCounters, new: EnsembleCounters) -> EnsembleStats:
    succeeded = new.succeeded - old.succeeded
    # Quantiles of a stretch of time without requests are those of an earlier one.
    p50, p95 = (new.p50, new.p95) if succeeded else (None, None)
    return EnsembleStats(succeeded, new.failed - old.failed, new.seconds - old.seconds, p50, p95)


def _added(first: StepCounters, second: StepCounters) -> StepCounters:
    return StepCounters(
        first.requests + second.requests,
        first.seconds + second.seconds,
        first.samples + second.samples,
        first.calls + second.calls,
    )
