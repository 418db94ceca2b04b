"""PromQL of the panels: selections, and expressions over the counters, summaries and histograms of Triton."""

from __future__ import annotations

from diffusion_contract.enums import Component
from diffusion_contract.tensors import MODEL_NAMES

ENSEMBLES = 'model=~".*_pipeline"'
DENOISER = f'model="{MODEL_NAMES[Component.DENOISER]}"'
SELECTION = 'namespace=~"$namespace",pipeline=~"$pipeline",target=~"$target"'
RATE = "[$__rate_interval]"
SECONDS = 1_000_000  # Triton counts microseconds.


def rate(metric: str, labels: str, by: str) -> str:
    """Per second, summed over pods."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}{RATE}))"


def ratio(over: str, under: str, labels: str, by: str) -> str:
    """One counter per another, over the same time."""
    return f"{rate(over, labels, by)} / {rate(under, labels, by)}"


def mean_seconds(labels: str, by: str) -> str:
    """Mean request latency."""
    return ratio("nv_inference_request_duration_us", "nv_inference_request_success", labels, by) + f" / {SECONDS}"


def error_ratio(labels: str, by: str) -> str:
    """Failed requests of all requests, 0 to 1."""
    failed = rate("nv_inference_request_failure", labels, by)
    return f"{failed} / ({failed} + {rate('nv_inference_request_success', labels, by)})"


def p95_seconds(labels: str, by: str) -> str:
    """95th percentile of the slowest pod: quantiles of pods cannot be added up."""
    return f'max by ({by}) (nv_inference_request_summary_us{{{labels},quantile="0.95"}}) / {SECONDS}'


def quantile(rank: float, buckets: str, by: str, window: str) -> str:
    """Of the histogram whose buckets are selected."""
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({rank}, sum by ({groups}) (rate({buckets}{window})))"
