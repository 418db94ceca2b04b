"""One checkpoint, one store and few servers for all component tests: exporting is what takes time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.builder.checkpoints import DEMO, write_checkpoint
from tests.support.builder.repository import Built, build_repository
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _share_of_the_processors() -> None:
    """Threads of processes that run side by side would spend their time waiting for each other."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    torch.set_num_threads(threads)
    # For what tests start.
    os.environ["OMP_NUM_THREADS"] = str(threads)


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
    return Built(store, str(build_repository(store, checkpoint, scheduler)[-1]["digest"]))


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
