"""What `benchmarks.gpu` can measure: a family of models in its full size, with the sizes that people use it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_contract.enums import ModelFamily

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Case:
    """One family, and what its images are made with.

    Args:
        family: of the pipeline's spec.
        pipeline: class of diffusers.
        tokenizers: folders of the checkpoint.
        side: pixels of an edge.
        steps: of an image.
        guidance: scale of it.
        max_batch: of every engine, and of diffusers.
        clients: numbers of clients, one after the other.
        spec: more of the pipeline's spec.
    """

    family: ModelFamily
    pipeline: str
    tokenizers: tuple[str, ...]
    side: int
    steps: int
    guidance: float
    max_batch: int
    clients: tuple[int, ...]
    spec: Mapping[str, object]

    @property
    def model(self) -> str:
        """Name of the ensemble."""
        return f"generate_{self.steps}_pipeline"


# What docs/batching.md advises where there are twice as many requests as a batch holds.
_FULL_BATCHES: Mapping[str, object] = {"serving": {"batching": {"takeTurns": False}}}

CASES: Mapping[str, Case] = {
    "sd1": Case(
        family=ModelFamily.STABLE_DIFFUSION,
        pipeline="StableDiffusionPipeline",
        tokenizers=("tokenizer",),
        side=512,
        steps=20,
        guidance=7.5,
        max_batch=8,
        clients=(1, 2, 4, 8, 16),
        spec={"scheduler": {"type": "DDIM"}, **_FULL_BATCHES},
    ),
    "sdxl": Case(
        family=ModelFamily.STABLE_DIFFUSION_XL,
        pipeline="StableDiffusionXLPipeline",
        tokenizers=("tokenizer", "tokenizer_2"),
        side=1024,
        steps=30,
        guidance=5.0,
        max_batch=4,
        clients=(1, 2, 4, 8),
        spec={"scheduler": {"type": "Euler"}, **_FULL_BATCHES},
    ),
}
"""By the name that `--family` takes."""
