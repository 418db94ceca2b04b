"""What a revision did during one step of a rollout, summed over its pods."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from diffusion_operator.analysis.counters import Counters, EnsembleStats, StepCounters


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
        steps += window.steps
        pods, unreachable_pods = pods + window.pods, unreachable_pods + window.unreachable_pods
    return Window(ensembles, steps, pods, unreachable_pods)


def _restarted(before: Counters, now: Counters) -> bool:
    if now.steps.requests < before.steps.requests or now.steps.seconds < before.steps.seconds:
        return True
    return any(_is_reset(old, now.ensembles.get(name, EnsembleStats())) for name, old in before.ensembles.items())


def _is_reset(old: EnsembleStats, new: EnsembleStats) -> bool:
    return new.succeeded < old.succeeded or new.failed < old.failed or new.seconds < old.seconds


def _difference(before: Counters, now: Counters) -> Window:
    differences = {name: new - before.ensembles.get(name, EnsembleStats()) for name, new in now.ensembles.items()}
    ensembles = {name: difference for name, difference in differences.items() if difference.requests}
    return Window(ensembles, now.steps - before.steps)
