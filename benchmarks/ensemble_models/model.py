"""A Python model that runs the whole denoising loop, for comparison with the unrolled ensemble.

The model's parameter `engines` says how a step is computed: `bls` calls the served models, `sessions` runs the engines
of the loop inside this process. Either calls the served models for what is not a step.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

from .loop import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .loop import Array, Tensors

_INPUTS = ("prompt", "seed", "guidance_scale")
_LOOP = ("5_denoiser", "6_scheduler_step")


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engines of the loop when they are to run here."""
        engines = json.loads(args["model_config"])["parameters"]["engines"]["string_value"]
        models = _LOOP if engines == "sessions" else ()
        self._sessions = {model: _load(Path(__file__).parents[2] / model) for model in models}
        self._engine_seconds = 0.0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Draw one image after the other."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - Triton's objects are untyped
        inputs = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in _INPUTS}
        steps = int(pb_utils.get_input_tensor_by_name(request, "steps").as_numpy()[0, 0])
        self._engine_seconds = 0.0
        image = draw(self._call, inputs, steps)
        seconds = np.array([[self._engine_seconds]], np.float32)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("encoded_image", image), pb_utils.Tensor("engine_seconds", seconds)]
        )

    def _call(self, model: str, inputs: Tensors, output_names: Sequence[str]) -> Tensors:
        session = self._sessions.get(model)
        if session is None:
            return _served(model, inputs, output_names)
        begin = time.perf_counter()
        results: Sequence[Array] = session.run(list(output_names), dict(inputs))
        self._engine_seconds += time.perf_counter() - begin
        return dict(zip(output_names, results, strict=True))


def _served(model: str, inputs: Tensors, output_names: Sequence[str]) -> Tensors:
    """Call another model of this server ("business logic scripting").

    Raises:
        pb_utils.TritonModelException: it answered with an error.
    """
    tensors = [pb_utils.Tensor(name, array) for name, array in inputs.items()]
    response = pb_utils.InferenceRequest(
        model_name=model, requested_output_names=list(output_names), inputs=tensors
    ).exec()
    if response.has_error():
        raise pb_utils.TritonModelException(f"{model}: {response.error().message()}")
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def _load(model: Path) -> Any:  # noqa: ANN401 - the runtime has no types
    """A session with the options of the served engines, or of an engine on a GPU."""
    version = model / "1"
    if not (version / "model.onnx").exists():
        from .graphs import Session, weights  # noqa: PLC0415 - torch takes seconds to import

        return Session(weights(version))
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(version / "model.onnx", options, providers=["CPUExecutionProvider"])
