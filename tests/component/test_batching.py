"""Requests of few clients share denoiser calls on real Triton, and a cancelled one makes no more of them."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc

from tests.support.builder.repository import Built, build_repository
from tests.support.triton.client import ImageRequest, counts, send, send_all
from tests.support.triton.tritonserver import serve, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.triton.tritonserver import Server

_PROMPT = "a red circle on a blue background"
_DENOISER = "5_denoiser"


def _mean_batch(server: Server, clients: int) -> float:
    """Of the denoiser's calls for one request of each client, sent at once."""
    before = counts(server.http, _DENOISER)
    send_all(server.http, [ImageRequest(20, [_PROMPT], seed=[index]) for index in range(clients)])
    return counts(server.http, _DENOISER).since(before).mean_batch


@pytest.mark.parametrize("clients", [2, 4, 8])
def test_few_clients_do_not_fall_into_groups_that_take_turns(ddim: Server, clients: int) -> None:
    # Two groups would give half the clients every time. On a machine with other work requests may also arrive apart,
    # and then there is little to join: one round in which they came together shows it.
    assert any(_mean_batch(ddim, clients) >= 0.8 * clients for _ in range(5))


def _large(images: int) -> list[Any]:
    """Tensors of a request whose steps take long."""
    arrays = {
        "prompt": ("BYTES", np.array([[_PROMPT.encode()]] * images, object)),
        "height": ("INT32", np.full((images, 1), 128, np.int32)),
        "width": ("INT32", np.full((images, 1), 128, np.int32)),
    }
    tensors = []
    for name, (datatype, array) in arrays.items():
        tensors.append(tritonclient.grpc.InferInput(name, list(array.shape), datatype))
        tensors[-1].set_data_from_numpy(array)
    return tensors


def test_a_request_of_priority_1_is_drawn_before_those_of_priority_2(store: Path, checkpoint: Path) -> None:
    serving = {"batching": {"priorities": True}}
    built = Built(store, str(build_repository(store, checkpoint, serving=serving)[-1]["digest"]))
    order: list[int] = []
    with (
        serve(built.models) as server,
        closing(tritonclient.grpc.InferenceServerClient(server.grpc)) as client,
    ):

        def send_large(priority: int) -> None:
            # Alone in a batch, so that nobody is drawn with somebody else.
            client.async_infer(
                "generate_4_pipeline", _large(8), lambda **_: order.append(priority), priority=priority
            )  # fmt: skip

        for _ in range(6):
            send_large(2)
        wait_until(lambda: counts(server.http, _DENOISER).calls >= 2, 300.0, lambda: "no step was made")
        send_large(1)
        wait_until(lambda: len(order) == 7, 300.0, lambda: f"answered: {order}")
    assert order.index(1) <= 1


def test_a_cancelled_request_stops_between_steps(ddim: Server) -> None:
    before, ended = counts(ddim.http, _DENOISER), threading.Event()
    with closing(tritonclient.grpc.InferenceServerClient(ddim.grpc)) as client:
        call = client.async_infer("generate_20_pipeline", _large(8), callback=lambda **_: ended.set())
        wait_until(lambda: counts(ddim.http, _DENOISER).since(before).calls >= 2, 300.0, lambda: "no step was made")
        call.cancel()
        assert ended.wait(300.0)
    # Of another size, so in calls of its own: were the first one still there, the two would take turns.
    send(ddim.http, ImageRequest(20, [_PROMPT]))
    assert counts(ddim.http, _DENOISER).since(before).samples - 20 <= 8 * 10
