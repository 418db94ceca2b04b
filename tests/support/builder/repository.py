"""Builds a Triton repository from a checkpoint, as `diffusion-builder build` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_builder.stages.build import build
from diffusion_builder.stages.progress import Mode, reporter
from diffusion_builder.stages.run import StageContext
from diffusion_builder.store import Store
from diffusion_contract.documents import read_local

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diffusion_builder.stages.run import Result
    from diffusion_contract.spec import DiffusionPipelineSpec

SHAPES = json.dumps(
    {
        "batch": {"min": 1, "opt": 4, "max": 8},
        "height": {"min": 64, "opt": 64, "max": 128},
        "width": {"min": 64, "opt": 64, "max": 128},
    }
)
TIERS = (4, 20)


@dataclass(frozen=True)
class Built:
    """A store with a repository in it."""

    store: Path
    repository: str

    @property
    def models(self) -> Path:
        """What Triton is pointed at."""
        return self.store / "repositories" / self.repository / "models"


def pipeline_spec(checkpoint: Path, scheduler: str = "DDIM", **fields: Any) -> DiffusionPipelineSpec:  # noqa: ANN401 - any JSON
    """What the tests build; `more` are fields of a spec."""
    body = {
        "model": {"source": {"path": str(checkpoint)}},
        **({} if "schedulers" in fields else {"scheduler": {"type": scheduler}}),
        "shapes": json.loads(SHAPES),
        "pipelines": [{"task": "generate", "steps": TIERS}],
    }
    return read_local({**body, **fields})


def build_repository(store: Path, checkpoint: Path, scheduler: str = "DDIM", **fields: Any) -> Sequence[Result]:  # noqa: ANN401
    """Build without a check, which the tests with a real Triton make; the last result is the repository's."""
    return build(context(store), pipeline_spec(checkpoint, scheduler, **fields), parity=False)


def context(store: Path) -> StageContext:
    """A store with plain progress on stderr."""
    return StageContext(Store(store), reporter(Mode.PLAIN))
