"""Many clients with mixed tasks, tiers and schedulers on real Triton: nothing is lost, changed or kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.support.builder.repository import TIERS, Built, build_repository
from tests.support.triton.client import answer, counts, psnr, tensor
from tests.support.triton.tritonserver import Server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.triton.client import Pixels

_TASKS = ("generate", "img2img", "inpaint")
_SCHEDULERS = ("DDIM", "EulerAncestral", "DPMSolverMultistep", "LCM")
_CLIENTS = 16
_DENOISER = "5_denoiser"
_ROWS, _COLUMNS = np.mgrid[:64, :64].astype(np.uint8) * 4
_IMAGE = np.stack([_ROWS, _COLUMNS, 255 - _ROWS], axis=-1)
_MASK = np.where(_ROWS < _COLUMNS, 255, 0).astype(np.uint8)
# Batches of another size take other code paths in matrix products: last bits differ, images do not.
_SAME_DB = 45.0


@pytest.fixture(scope="module")
def server(store: Path, checkpoint: Path) -> Iterator[Server]:
    pipelines = [{"task": task, "steps": TIERS} for task in _TASKS]
    results = build_repository(
        store, checkpoint, pipelines=pipelines, schedulers=[{"type": name} for name in _SCHEDULERS]
    )
    with serve(Built(store, str(results[-1]["digest"])).models) as running:
        yield running


@dataclass(frozen=True)
class LoadRequest:
    """One request for one image."""

    task: str
    steps: int
    scheduler: str
    seed: int

    @classmethod
    def number(cls, index: int) -> LoadRequest:
        """The requests differ in everything; of 24 in a row no two have task, tier and scheduler in common."""
        return cls(_TASKS[index % 3], TIERS[index % 2], _SCHEDULERS[index // 6 % 4], index)

    @property
    def ensemble(self) -> str:
        return f"{self.task}_{self.steps}_pipeline"

    def tensors(self) -> Sequence[Any]:
        inputs = [
            tensor("prompt", "BYTES", np.array([[f"a red circle, number {self.seed}".encode()]], object)),
            tensor("scheduler", "BYTES", np.array([[self.scheduler.encode()]], object)),
            tensor("seed", "INT64", np.array([[self.seed]], np.int64)),
        ]
        if self.task != "generate":
            inputs.append(tensor("input_image", "UINT8", _IMAGE[None]))
        if self.task == "inpaint":
            inputs.append(tensor("mask", "UINT8", _MASK[None]))
        return inputs


def _image(server: Server, request: LoadRequest) -> Pixels:
    return np.asarray(answer(server.http, request.ensemble, request.tensors(), ["image"]).as_numpy("image"), np.uint8)


def test_sixteen_clients_of_all_tasks_tiers_and_schedulers_get_their_own_images_in_shared_calls(
    server: Server,
) -> None:
    load_requests = [LoadRequest.number(index) for index in range(_CLIENTS)]
    alone = [_image(server, request) for request in load_requests]
    before = counts(server.http, _DENOISER)
    with ThreadPoolExecutor(_CLIENTS) as pool:
        together = list(pool.map(lambda request: _image(server, request), load_requests))
    denoiser_counts = counts(server.http, _DENOISER).since(before)
    assert all(psnr(one, other) >= _SAME_DB for one, other in zip(alone, together, strict=True))
    assert denoiser_counts.samples == sum(request.steps for request in load_requests)
    assert denoiser_counts.mean_batch >= 4.0


def _all_at_work(server: Server, first: int, requests: int) -> None:
    """Each client sends one request of 4 steps after the other, on a connection of its own."""
    problems: list[Exception] = []

    def work(client: int) -> None:
        try:
            address = server.http.removeprefix("http://")
            with closing(triton.InferenceServerClient(address, network_timeout=120.0)) as connection:
                for index in range(first + client, first + _CLIENTS * requests, _CLIENTS):
                    request = LoadRequest(_TASKS[index % 3], 4, _SCHEDULERS[index // 3 % 4], index)
                    outputs = [triton.InferRequestedOutput("encoded_image")]
                    connection.infer(request.ensemble, request.tensors(), outputs=outputs)
        except Exception as error:  # noqa: BLE001 - any problem of a thread is the test's
            problems.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def _resident(pid: int) -> int:
    """Bytes of the server and of its Python models that are theirs alone."""
    return sum(_private(each) for each in (pid, *_children(pid)))


def _children(pid: int) -> Sequence[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


@pytest.mark.long
def test_two_thousand_requests_leave_nothing_behind(server: Server) -> None:
    _all_at_work(server, 0, 30)
    before = _resident(server.pid)
    _all_at_work(server, 480, 125)
    # A leak of one latent a request would be 2 MB, of one decoded image 98 MB.
    assert _resident(server.pid) - before < 48 << 20
