"""The stage compare: images of the golden prompts by a canary and by the stable revision, with the same seeds."""

from diffusion_builder.compare.spec import CompareSpec
from diffusion_builder.compare.stage import compare

__all__ = ["CompareSpec", "compare"]
