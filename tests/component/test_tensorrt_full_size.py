"""SD 1.5 in its real size exports and compiles: the shapes, the 3.4 GB of external weights, the memory.

Part of `make test-long`. Needs 12 GiB of memory, 16 of disk.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from diffusion_contract.enums import Component
from tests.support.tensorrt import tensorrt_rtx
from tests.support.tensorrt.checkpoints import write_full_size_sd1
from tests.support.tensorrt.conformance import Workshop

if TYPE_CHECKING:
    from collections.abc import Iterator

# About four minutes on two idle cores; gigabytes are hashed, and a busy machine takes its time for them.
pytestmark = [pytest.mark.timeout(3600), pytest.mark.long]
_SIDE = {"min": 512, "opt": 512, "max": 768}
SHAPES = json.dumps({"batch": {"min": 1, "opt": 2, "max": 4}, "height": _SIDE, "width": _SIDE})


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A store of its own: 10 GB that nobody else needs."""
    folder = tmp_path_factory.mktemp("full-size")
    yield Workshop(folder / "store", tensorrt_rtx.write_programs(folder / "programs"))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def source(workshop: Workshop) -> str:
    """Digest of the checkpoint in the store; the original is gone again."""
    folder = write_full_size_sd1(workshop.store.parent / "checkpoint")
    digest = str(workshop.stage("fetch", "--path", str(folder))["digest"])
    shutil.rmtree(folder)
    return digest


@pytest.mark.parametrize(
    ("component", "bytes_at_least"),
    [(Component.DENOISER, 3_400_000_000), (Component.VAE_DECODER, 190_000_000), (Component.TEXT_ENCODER, 480_000_000)],
)
def test_a_full_size_component_compiles(
    workshop: Workshop, source: str, component: Component, bytes_at_least: int
) -> None:
    exported = workshop.stage("export", "--source", source, "--component", component)
    result = workshop.compile_plan(str(exported["digest"]), SHAPES)
    assert exported["sizeBytes"] > bytes_at_least
    assert result["sizeBytes"] > bytes_at_least
    for folder in (workshop.engine(result), workshop.store / "onnx" / str(exported["digest"])):
        # Gigabytes: room for the next component.
        shutil.rmtree(folder)
