"""4_conditioner: checks a request and makes its first state, schedule, noise and scales; see `conditioning.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .conditioner_config import ConditionerConfig
from .conditioning import compute_outputs
from .triton_io import respond_each


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the configuration that lies beside this file."""
        self._config = ConditionerConfig.from_json(Path(__file__).with_name("conditioner.json").read_text())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return respond_each(requests, partial(compute_outputs, self._config))
