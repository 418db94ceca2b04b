"""Golden pictures: what a canary draws beside what the stable revision draws, with the same words and seeds."""

from diffusion_builder.judge.spec import JudgeSpec
from diffusion_builder.judge.stage import judge

__all__ = ["JudgeSpec", "judge"]
