"""Builds a Triton repository from a checkpoint, as `diffusion-builder build` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diffusion_builder.errors import BadInputError
from diffusion_builder.stages.build import build
from diffusion_builder.stages.progress import Mode, reporter
from diffusion_builder.stages.run import StageContext
from diffusion_builder.store import Store
from diffusion_contract.documents import read_local

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

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


def refused_build(folder: Path, spec: DiffusionPipelineSpec) -> BadInputError:
    """Why a spec is not built; nothing of it has been exported."""
    with pytest.raises(BadInputError) as caught:
        build(context(folder / "store"), spec)
    assert not list((folder / "store" / "onnx").glob("*"))
    return caught.value


def sample_inputs(seed: int, **inputs: str | float | tuple[int, int]) -> dict[str, NDArray[Any]]:
    """A request of one sample."""
    tensors: dict[str, NDArray[Any]] = {"seed": np.array([[seed]], np.int64)}
    for name, value in inputs.items():
        match value:
            case str():
                tensors[name] = np.array([[value.encode()]], object)
            case tuple():
                tensors[name] = np.array([value], np.int32)
            case _:
                tensors[name] = np.array([[value]], np.float32)
    return tensors


def context(store: Path) -> StageContext:
    """A store with plain progress on stderr."""
    return StageContext(Store(store), reporter(Mode.PLAIN))
