"""Whether a canary is as good as the stable revision: what Triton counted on both sides at the same time. Pure."""

from diffusion_operator.analysis.counters import Counters, parse_counters
from diffusion_operator.analysis.evaluation import evaluate
from diffusion_operator.analysis.verdict import Outcome, Verdict
from diffusion_operator.analysis.window import EnsembleStats, PodHistory, ScrapeTarget, Window, summarize

__all__ = [
    "Counters",
    "EnsembleStats",
    "Outcome",
    "PodHistory",
    "ScrapeTarget",
    "Verdict",
    "Window",
    "evaluate",
    "parse_counters",
    "summarize",
]
