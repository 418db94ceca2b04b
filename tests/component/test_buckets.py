"""A repository with buckets makes images of these sizes and of no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from diffusion_builder.errors import BadInputError
from diffusion_builder.parity import in_process
from diffusion_builder.stages.build import build
from diffusion_builder.store import Kind, Store
from diffusion_contract.documents import read_local
from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint
from tests.support.builder.repository import Built, context
from tests.support.gateway.running import start_gateway
from tests.support.triton.tritonserver import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from diffusion_builder.parity.in_process import InProcessServer

_one_thread = pytest.fixture(autouse=True, scope="module")(parts.one_thread)
_BUCKETS = ((128, 64), (64, 128))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Compared with diffusers at the smallest bucket."""
    root = tmp_path_factory.mktemp("buckets")
    spec = read_local(
        {
            "model": {"source": {"path": str(checkpoint(root / "checkpoint", "sd1"))}},
            "shapes": {"buckets": [{"height": height, "width": width} for height, width in _BUCKETS]},
            "pipelines": [{"task": "generate", "steps": [1]}, {"task": "img2img", "steps": [1]}],
        }
    )
    store = Store(root / "store")
    *_, assembled, report = build(context(store.root), spec)
    assert report["worstPSNR"] >= report["minPSNR"] == 35.0
    return Built(store.root, str(assembled["digest"]))


@pytest.fixture(scope="module")
def server(repository: Built) -> Iterator[InProcessServer]:
    store = Store(repository.store)
    with in_process.load_repository(store, store.get(Kind.REPOSITORY, repository.repository)) as loaded:
        yield loaded


def _request(**sizes: int) -> dict[str, NDArray[Any]]:
    texts = {"prompt": np.array([[b"a red circle"]], object)}
    return texts | {name: np.array([[value]], np.int32) for name, value in sizes.items()}


@pytest.mark.parametrize("size", _BUCKETS)
def test_each_bucket_is_served(server: InProcessServer, size: tuple[int, int]) -> None:
    height, width = size
    images = server.generate("generate_1_pipeline", _request(height=height, width=width)).images
    assert images.shape == (1, height, width, 3)
    image = np.zeros((1, height, width, 3), np.uint8)
    assert server.generate("img2img_1_pipeline", _request() | {"input_image": image}).images.shape == image.shape


def test_the_first_bucket_is_the_default(server: InProcessServer) -> None:
    assert server.generate("generate_1_pipeline", _request()).images.shape == (1, *_BUCKETS[0], 3)


def test_other_sizes_are_refused_in_every_task(server: InProcessServer) -> None:
    says = "height 64 and width 64 are not supported together: send height and width of one of 128 x 64, 64 x 128"
    with pytest.raises(BadInputError, match=says):
        server.generate("generate_1_pipeline", _request(height=64, width=64))
    with pytest.raises(BadInputError, match=says):
        server.generate("img2img_1_pipeline", _request() | {"input_image": np.zeros((1, 64, 64, 3), np.uint8)})


def test_the_images_api_knows_the_sizes(repository: Built, tmp_path: Path) -> None:
    """It has them from Triton; so a request that is refused does not wait."""
    with (
        serve(repository.models) as triton,
        start_gateway(tmp_path, "--pipeline", f"shapes={triton.grpc}", "--auth", "none") as gateway,
        httpx.Client(base_url=f"{gateway.url}/v1", timeout=120.0) as client,
    ):
        assert client.get("/models/shapes").json()["sizes"] == ["64x128", "128x64"]
        statuses = {}
        for size in ("64x128", "128x64", "64x64", "auto"):
            answer = client.post("/images/generations", json={"prompt": "a red circle", "size": size})
            statuses[size] = answer.status_code
            if size == "64x64":
                error = answer.json()["error"]
                assert (error["param"], "send 64x128 or 128x64" in error["message"]) == ("size", True)
        assert statuses == {"64x128": 200, "128x64": 200, "64x64": 400, "auto": 200}
