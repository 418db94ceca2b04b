"""One checkpoint, one store and few servers for all component tests: exporting is what takes time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from diffusion_builder.build_spec import BuildSpec
from diffusion_builder.stages.build import build
from diffusion_builder.stages.progress import Mode, reporter
from diffusion_builder.stages.run import Context
from diffusion_builder.store import Store
from tests.component.checkpoints import DEMO, write_checkpoint
from tests.component.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from diffusion_builder.stages.run import Result

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


def plan(checkpoint: Path, scheduler: str = "DDIM", **more: Any) -> BuildSpec:  # noqa: ANN401 - any JSON
    """What the tests build; `more` are fields of a spec."""
    body = {
        "model": {"source": {"path": str(checkpoint)}},
        **({} if "schedulers" in more else {"scheduler": {"type": scheduler}}),
        "shapes": json.loads(SHAPES),
        "pipelines": [{"task": "generate", "steps": TIERS}],
    }
    return BuildSpec.model_validate({**body, **more})


def make(store: Path, checkpoint: Path, scheduler: str = "DDIM", **more: Any) -> Sequence[Result]:  # noqa: ANN401
    """Build without a check, which the tests with a real Triton make; the last result is the repository's."""
    return build(context(store), plan(checkpoint, scheduler, **more), checked=False)


def context(store: Path) -> Context:
    """A store with plain progress on stderr."""
    return Context(Store(store), reporter(Mode.PLAIN))


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint")


@pytest.fixture(scope="session")
def checkpoint(random_checkpoint: Path) -> Path:
    """The trained demo checkpoint; in a tree without it a random one, which computes just the same."""
    return DEMO if (DEMO / "model_index.json").exists() else random_checkpoint


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the whole session, so that each engine is built once."""
    return tmp_path_factory.mktemp("store")


def _built(store: Path, checkpoint: Path, scheduler: str) -> Built:
    return Built(store, str(make(store, checkpoint, scheduler)[-1]["digest"]))


@pytest.fixture(scope="session")
def built(store: Path, checkpoint: Path) -> Built:
    """The repository for DDIM."""
    return _built(store, checkpoint, "DDIM")


@pytest.fixture(scope="session")
def ddim(built: Built) -> Iterator[Server]:
    """Triton with the repository for DDIM."""
    with serve(built.models) as server:
        yield server


@pytest.fixture(scope="session")
def euler(store: Path, checkpoint: Path) -> Iterator[Server]:
    """Triton with the repository for Euler; the engines are those of DDIM."""
    with serve(_built(store, checkpoint, "Euler").models) as server:
        yield server
