"""What the preStop hook waits for, on a real server."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

from diffusion_builder.serving.drain import drain, read_load
from tests.support.triton import tritonserver

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
name: "slow" backend: "python" max_batch_size: 0
input [{ name: "SECONDS" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "SLEPT" data_type: TYPE_FP32 dims: [1] }]
"""
MODEL = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()
            time.sleep(float(seconds[0]))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT", seconds)]))
        return answers
"""


def send_request(server: tritonserver.Server, seconds: float) -> int:
    tensor = {"name": "SECONDS", "shape": [1], "datatype": "FP32", "data": [seconds]}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = urllib.request.Request(f"{server.http}/v2/models/slow/infer", body)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310 - same
        return int(response.status)


def test_a_stopping_pod_waits_for_what_is_in_flight_and_not_much_longer(tmp_path: Path) -> None:
    model = tmp_path / "slow" / "1"
    model.mkdir(parents=True)
    (tmp_path / "slow" / "config.pbtxt").write_text(CONFIG)
    (model / "model.py").write_text(MODEL)
    answered: list[float] = []

    def work() -> None:
        for _ in range(4):  # one model: they wait for each other, as the steps of a request do
            assert send_request(server, 1.0) == 200
        answered.append(time.monotonic())

    with tritonserver.serve(tmp_path) as server:
        assert send_request(server, 1.0) == 200
        thread = threading.Thread(target=work)
        thread.start()
        assert drain(lambda: read_load(server.metrics), min_wait=0, timeout=30)
        ended = time.monotonic()
        thread.join(30)
    assert answered
    assert answered[0] < ended < answered[0] + 6
