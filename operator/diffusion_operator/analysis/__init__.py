"""Whether a canary is as good as the stable revision: what Triton counted on both sides at the same time. Pure."""

from diffusion_operator.analysis.counters import Counters, read
from diffusion_operator.analysis.judgement import judge
from diffusion_operator.analysis.verdict import Limits, Outcome, Verdict
from diffusion_operator.analysis.window import Track, Traffic, Window, summarize

__all__ = ["Counters", "Limits", "Outcome", "Track", "Traffic", "Verdict", "Window", "judge", "read", "summarize"]
