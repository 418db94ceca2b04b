"""One checkpoint, one store and few servers for all component tests: exporting is what takes time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from diffusion_builder.progress import Mode, reporter
from diffusion_builder.stages import BuildPlan, Context, Origin, build
from diffusion_builder.store import Store
from tests.component.checkpoints import DEMO, write_checkpoint
from tests.component.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def plan(scheduler: str = "DDIM") -> BuildPlan:
    """What the tests build."""
    return BuildPlan("cpu", TIERS, scheduler, SHAPES)


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
    results = build(context(store), Origin(path=checkpoint), plan(scheduler))
    return Built(store, str(results[-1]["digest"]))


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
