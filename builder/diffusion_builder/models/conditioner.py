"""4_conditioner: checks a request and makes its first state, schedule, noise and scales; see `conditions.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .conditions import condition
from .inputs import InputError
from .plan import ConditionError, Plan
from .triton_io import Array, RequestError, each

if TYPE_CHECKING:
    from collections.abc import Mapping


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the plan that lies beside this file."""
        self._plan = Plan.from_json(Path(__file__).with_name("plan.json").read_text())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return each(requests, self._condition)

    def _condition(self, request: Any) -> Mapping[str, Array]:  # noqa: ANN401 - Triton's objects are untyped
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            return condition(self._plan, inputs, frozenset(request.requested_output_names()))
        except (ConditionError, InputError) as error:
            raise RequestError(str(error)) from error
