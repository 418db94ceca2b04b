"""What one Triton has counted since it started, read from its metrics."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from operator import add, sub
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from diffusion_contract.enums import Component
from diffusion_contract.tensors import MODEL_NAMES

DENOISER = MODEL_NAMES[Component.DENOISER]
ENSEMBLE = "_pipeline"

_SUCCESS = "nv_inference_request_success"
_FAILURE = "nv_inference_request_failure"
_DURATION = "nv_inference_request_duration_us"
_COMPUTE = "nv_inference_compute_infer_duration_us"
_SAMPLES = "nv_inference_count"
_CALLS = "nv_inference_exec_count"
_SUMMARY = "nv_inference_request_summary_us"
_QUANTILES = (0.5, 0.95)
_MICROSECOND = 1e-6
# The client went away: that says nothing about the server.
_NOT_A_FAILURE = "CANCELED"


@dataclass(frozen=True)
class EnsembleStats:
    """One ensemble's requests, since its server started or within a window.

    Attributes:
        succeeded: requests that were answered.
        failed: requests that were not; those that a client gave up are left out.
        seconds: sum over the answered ones.
        p50: seconds; of one server over about the last minute, else the mean over pods and readings, weighed by
            requests. None without requests, and where Triton reports none.
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

    def __sub__(self, earlier: Self) -> "EnsembleStats":
        succeeded = self.succeeded - earlier.succeeded
        # Quantiles of a stretch of time without requests are those of an earlier one.
        p50, p95 = (self.p50, self.p95) if succeeded else (None, None)
        return EnsembleStats(succeeded, self.failed - earlier.failed, self.seconds - earlier.seconds, p50, p95)


@dataclass(frozen=True)
class StepCounters:
    """The denoiser: one request is one step of an image or of a few.

    Attributes:
        requests: that have succeeded.
        seconds: of computing, summed over requests; those that share a call each count all of it.
        samples: image steps.
        calls: of the engine.
    """

    requests: float = 0.0
    seconds: float = 0.0
    samples: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Self) -> "StepCounters":
        return StepCounters(*map(add, astuple(self), astuple(other)))

    def __sub__(self, earlier: Self) -> "StepCounters":
        return StepCounters(*(max(0.0, difference) for difference in map(sub, astuple(self), astuple(earlier))))


@dataclass(frozen=True)
class Counters:
    """One pod."""

    ensembles: Mapping[str, EnsembleStats] = field(default_factory=dict)
    steps: StepCounters = field(default_factory=StepCounters)


def parse_counters(text: str) -> Counters:
    """What Triton's metrics say; versions of a model are summed.

    Raises:
        ValueError: not Prometheus' text format, or nothing that Triton says.
    """
    values: dict[tuple[str, str, str], float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                _add_sample(values, sample)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not Prometheus' text format: {error}") from error
    models = {model for name, model, _ in values if name == _SUCCESS}
    if not models:
        raise ValueError(f"no {_SUCCESS} in it: this is not Triton")
    return Counters({name: _ensemble(values, name) for name in models if name.endswith(ENSEMBLE)}, _steps(values))


def _add_sample(values: dict[tuple[str, str, str], float], sample: Sample) -> None:
    model, quantile = sample.labels.get("model"), sample.labels.get("quantile", "")
    if model is None or sample.labels.get("reason") == _NOT_A_FAILURE:
        return
    # prometheus_client appends it to counters, where Triton writes none.
    key = (sample.name.removesuffix("_total"), model, quantile)
    if quantile:
        values[key] = float(sample.value)
    elif not (math.isfinite(sample.value) and sample.value >= 0):
        raise ValueError(f"{sample.name} of {model} is {sample.value}")
    else:
        values[key] = values.get(key, 0.0) + float(sample.value)


def _weighted_mean(first: float | None, weight: float, second: float | None, other: float) -> float | None:
    """Mean of what is known. A quantile of a sum is not known from quantiles; between readings it hardly moves."""
    if first is None or weight == 0:
        return second if other > 0 else first
    if second is None or other == 0:
        return first
    return (first * weight + second * other) / (weight + other)


def _ensemble(values: Mapping[tuple[str, str, str], float], model: str) -> EnsembleStats:
    p50, p95 = (_quantile(values, model, quantile) for quantile in _QUANTILES)
    return EnsembleStats(
        succeeded=values.get((_SUCCESS, model, ""), 0.0),
        failed=values.get((_FAILURE, model, ""), 0.0),
        seconds=values.get((_DURATION, model, ""), 0.0) * _MICROSECOND,
        p50=p50,
        p95=p95,
    )


def _quantile(values: Mapping[tuple[str, str, str], float], model: str, quantile: float) -> float | None:
    for (series, owner, label), value in values.items():
        if (series, owner) == (_SUMMARY, model) and label and float(label) == quantile:
            return value * _MICROSECOND if math.isfinite(value) else None
    return None


def _steps(values: Mapping[tuple[str, str, str], float]) -> StepCounters:
    return StepCounters(
        requests=values.get((_SUCCESS, DENOISER, ""), 0.0),
        seconds=values.get((_COMPUTE, DENOISER, ""), 0.0) * _MICROSECOND,
        samples=values.get((_SAMPLES, DENOISER, ""), 0.0),
        calls=values.get((_CALLS, DENOISER, ""), 0.0),
    )
