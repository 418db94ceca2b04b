"""What a safety checker withholds is said: by the ensemble, by its JSON twin, and by the images API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.support.builder import parts
from tests.support.builder.conditioned import checkpoint
from tests.support.builder.repository import Built, build_repository
from tests.support.gateway.running import start_gateway
from tests.support.triton.client import answer, tensor
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BATCH, BATCHES = 2, 12
PROMPT = "a red circle"


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("flagged")
    base = checkpoint(folder / "base", "sd1")
    parts.safety_checker()(folder / "checker")
    model = {"source": {"path": str(base)}, "safetyChecker": {"source": {"path": str(folder / "checker")}}}
    results = build_repository(
        folder / "store", base, model=model, pipelines=[{"task": "generate", "steps": [2], "previews": [1]}]
    )
    with serve(Built(folder / "store", str(results[-1]["digest"])).models) as server:
        yield server


@pytest.fixture(scope="module")
def flags(triton: Server) -> dict[int, bool]:
    """The verdict about the image of each seed, beside which the image is black exactly where it is withheld."""
    verdicts: dict[int, bool] = {}
    for first in range(0, BATCH * BATCHES, BATCH):
        seeds = range(first, first + BATCH)
        tensors = [
            tensor("prompt", "BYTES", np.array([[PROMPT.encode()]] * BATCH, np.object_)),
            tensor("seed", "INT64", np.array([[seed] for seed in seeds], np.int64)),
        ]
        result = answer(triton.http, "generate_2_pipeline", tensors, ["image", "flagged"])
        values, images = result.as_numpy("flagged"), result.as_numpy("image")
        assert (values.dtype, values.shape) == (np.bool_, (BATCH, 1))
        assert [not image.any() for image in images] == values[:, 0].tolist()
        verdicts |= {seed: bool(value) for seed, value in zip(seeds, values[:, 0], strict=True)}
    return verdicts


def test_some_images_are_withheld_and_others_are_not(flags: dict[int, bool]) -> None:
    assert set(flags.values()) == {False, True}


def test_the_verdict_alone_costs_no_image(triton: Server, flags: dict[int, bool]) -> None:
    tensors = [
        tensor("prompt", "BYTES", np.array([[PROMPT.encode()]], np.object_)),
        tensor("seed", "INT64", np.array([[3]], np.int64)),
    ]
    result = answer(triton.http, "generate_2_pipeline", tensors, ["flagged"])
    assert result.as_numpy("flagged").tolist() == [[flags[3]]]
    assert result.as_numpy("encoded_image") is None


def test_clients_that_speak_json_read_it_too(triton: Server, flags: dict[int, bool]) -> None:
    for seed in (0, 1, 2):
        url = f"{triton.http}/v2/models/generate_2_json/generate"
        answered = httpx.post(url, json={"prompt": PROMPT, "seed": seed}, timeout=300).json()
        assert answered["flagged"] is flags[seed]


def test_the_images_api_says_it(triton: Server, flags: dict[int, bool], tmp_path: Path) -> None:
    withheld = next(seed for seed, flag in flags.items() if flag)
    mixed = next(seed for seed in flags if flags[seed] != flags.get(seed + 1, flags[seed]))
    with start_gateway(tmp_path, "--pipeline", f"tiny={triton.grpc}", "--auth", "none") as gateway:
        with httpx.Client(base_url=gateway.url, timeout=300) as client:
            one = client.post("/v1/images/generations", json={"prompt": PROMPT, "seed": withheld})
            assert (one.status_code, one.json()["error"]["code"]) == (400, "moderation_blocked")
            two = client.post("/v1/images/generations", json={"prompt": PROMPT, "seed": mixed, "n": 2}).json()
            assert [entry["flagged"] for entry in two["data"]] == [flags[mixed], flags[mixed + 1]]
        assert gateway.value("images_total", model="tiny", key="anonymous", kind="withheld") == 1
