"""4_conditioner: checks a request and makes its first state, guidance, step index and schedule tables.

Outputs that depend on the step count exist once per tier; only those that are asked for are computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import conditions
from .triton_io import Array, RequestError, each, read

if TYPE_CHECKING:
    from collections.abc import Mapping


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the schedules that lie beside this file."""
        self._plan = conditions.Plan.from_json(Path(__file__).with_name("schedules.json").read_text())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return each(requests, self._condition)

    def _condition(self, request: Any) -> Mapping[str, Array]:  # noqa: ANN401 - Triton's objects are untyped
        wanted = set(request.requested_output_names())
        try:
            asked = _asked(request)
            outputs: dict[str, Array] = {"guidance": conditions.guidance(asked)}
            unit = conditions.noise(self._plan, asked)
        except conditions.ConditionError as error:
            raise RequestError(str(error)) from error
        outputs["step_index"] = np.zeros((asked.batch, 1), np.int32)
        for steps, tier in self._plan.tiers.items():
            if f"table_{steps}" in wanted:
                tensors = conditions.tiered(tier, unit)
                outputs |= {f"{name}_{steps}": array for name, array in tensors.items()}
        return {name: array for name, array in outputs.items() if name in wanted}


def _asked(request: Any) -> conditions.Asked:  # noqa: ANN401 - Triton's objects are untyped
    prompt = read(request, "prompt")
    if prompt is None or len(prompt) == 0:
        raise RequestError("prompt is empty: send BYTES of shape [B, 1] with at least one prompt")
    return conditions.Asked(
        len(prompt), _values(request, "seed"), _values(request, "guidance_scale"),
        _values(request, "height"), _values(request, "width"),
    )  # fmt: skip


def _values(request: Any, name: str) -> list[Any] | None:  # noqa: ANN401 - Triton's objects are untyped
    tensor = read(request, name)
    return None if tensor is None else tensor.reshape(-1).tolist()
