"""Requests of many clients share denoiser calls on real Triton, and nothing is lost, changed or kept."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http as triton

from tests.component.client import Ask, Counts, counts, inputs, psnr, send, send_all
from tests.component.tritonserver import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.component.tritonserver import Server

_PROMPT = "a red circle on a blue background"
# Batches of another size take other code paths in matrix products: last bits differ, pictures do not.
_SAME_DB = 45.0
_DENOISER = "5_denoiser"


def _mean_batch(before: Counts, after: Counts) -> float:
    return (after.samples - before.samples) / (after.calls - before.calls)


def test_sixteen_clients_of_two_tiers_get_their_own_pictures_in_shared_calls(ddim: Server) -> None:
    asks = [Ask(20 if index % 2 else 4, [f"{_PROMPT} {index}"], seed=[index]) for index in range(16)]
    alone = [send(ddim.http, ask) for ask in asks]
    before = counts(ddim.http, _DENOISER)
    together = send_all(ddim.http, asks)
    after = counts(ddim.http, _DENOISER)
    assert all(psnr(one, other) >= _SAME_DB for one, other in zip(alone, together, strict=True))
    assert after.samples - before.samples == sum(ask.steps for ask in asks)
    assert _mean_batch(before, after) >= 4.0


def _all_at_work(http: str, clients: int, requests: int) -> None:
    """Each client sends one request after the other, on a connection of its own."""
    problems: list[Exception] = []

    def work(client: int) -> None:
        try:
            with closing(triton.InferenceServerClient(http.removeprefix("http://"), network_timeout=120.0)) as server:
                for number in range(requests):
                    ask = Ask(4, [_PROMPT], seed=[client * requests + number])
                    server.infer(ask.model, inputs(ask), outputs=[triton.InferRequestedOutput("encoded_image")])
        except Exception as error:  # noqa: BLE001 - any problem of a thread is the test's
            problems.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("clients", [2, 4, 8])
def test_few_clients_do_not_fall_into_groups_that_take_turns(ddim: Server, clients: int) -> None:
    asks = [Ask(20, [_PROMPT], seed=[index]) for index in range(clients)]
    before = counts(ddim.http, _DENOISER)
    for _ in range(3):
        send_all(ddim.http, asks)
    # Two groups would give half the clients; what lacks to all of them is mostly the first and last steps of a round.
    assert _mean_batch(before, counts(ddim.http, _DENOISER)) >= 0.7 * clients


def _large(pictures: int) -> list[Any]:
    """Tensors of a request whose steps take long."""
    arrays = {
        "prompt": ("BYTES", np.array([[_PROMPT.encode()]] * pictures, object)),
        "height": ("INT32", np.full((pictures, 1), 128, np.int32)),
        "width": ("INT32", np.full((pictures, 1), 128, np.int32)),
    }
    tensors = []
    for name, (datatype, array) in arrays.items():
        tensors.append(tritonclient.grpc.InferInput(name, list(array.shape), datatype))
        tensors[-1].set_data_from_numpy(array)
    return tensors


def test_a_cancelled_request_stops_between_steps(ddim: Server) -> None:
    before, ended = counts(ddim.http, _DENOISER), threading.Event()
    with closing(tritonclient.grpc.InferenceServerClient(ddim.grpc)) as client:
        call = client.async_infer("generate_20_pipeline", _large(8), callback=lambda **_: ended.set())
        wait_until(lambda: counts(ddim.http, _DENOISER).calls - before.calls >= 2, 60.0, lambda: "no step was made")
        call.cancel()
        assert ended.wait(60.0)
    # Of another size, so in calls of its own: were the first one still there, the two would take turns.
    send(ddim.http, Ask(20, [_PROMPT]))
    assert counts(ddim.http, _DENOISER).samples - before.samples - 20 <= 8 * 10


def _resident(pid: int) -> int:
    """Bytes of the server and of its Python models that are theirs alone."""
    return sum(_private(each) for each in (pid, *_children(pid)))


def _children(pid: int) -> Sequence[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def test_two_thousand_requests_leave_nothing_behind(ddim: Server) -> None:
    _all_at_work(ddim.http, 16, 30)
    before = _resident(ddim.pid)
    _all_at_work(ddim.http, 16, 125)
    # A leak of one latent a request would be 2 MB, of one decoded picture 98 MB.
    assert _resident(ddim.pid) - before < 48 << 20
