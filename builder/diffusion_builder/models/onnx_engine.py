"""Runs an ONNX engine in Triton's Python backend, for servers without Triton's own onnxruntime backend.

All requests that Triton has queued are joined into one call and split again, so step-level batching works as
it does with a native backend.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .cpus import threads
from .triton_io import Array, error_response, read, response


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the engine that is linked beside this file."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads(os.environ)
        options.inter_op_num_threads = 1
        # Several engines share the CPUs: a thread that spins takes time from another engine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # The link is resolved because the runtime looks for the weights beside the real file.
        model = Path(__file__).with_name("model.onnx").resolve(strict=True)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run one call for all requests, whose shapes Triton has made agree."""
        feed = {name: _join([read(request, name) for request in requests]) for name in self._inputs}
        names = sorted({name for request in requests for name in request.requested_output_names()})
        try:
            outputs = dict(zip(names, self._session.run(names, feed), strict=True))
        except Exception as error:  # noqa: BLE001 - the runtime's exceptions have no common class of their own
            return [error_response(f"the engine failed: {str(error).splitlines()[0]}") for _ in requests]
        return _split(requests, outputs)


def _join(arrays: list[Array | None]) -> Array:
    present = [array for array in arrays if array is not None]
    return present[0] if len(present) == 1 else np.concatenate(present)


def _split(requests: list[Any], outputs: dict[str, Array]) -> list[Any]:
    responses, begin = [], 0
    for request in requests:
        end = begin + _batch(request)
        names = request.requested_output_names()
        responses.append(response({name: np.ascontiguousarray(outputs[name][begin:end]) for name in names}))
        begin = end
    return responses


def _batch(request: Any) -> int:  # noqa: ANN401 - Triton's objects are untyped
    return int(request.inputs()[0].shape()[0])
