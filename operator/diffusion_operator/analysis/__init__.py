"""Whether a canary is as good as the stable revision: what Triton counted on both sides at the same time. Pure."""

from diffusion_operator.analysis.counters import Counters, read
from diffusion_operator.analysis.evaluation import evaluate
from diffusion_operator.analysis.verdict import Outcome, Verdict
from diffusion_operator.analysis.window import ScrapeTarget, Track, Traffic, Window, summarize

__all__ = [
    "Counters",
    "Outcome",
    "ScrapeTarget",
    "Track",
    "Traffic",
    "Verdict",
    "Window",
    "evaluate",
    "read",
    "summarize",
]
