"""1_preprocessor: images and masks of a request → what the engines read; only the requested outputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .preprocess import PreprocessorConfig, preprocess
from .triton_io import respond_each


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the configuration that lies beside this file."""
        self._config = PreprocessorConfig.from_json(Path(__file__).with_name("preprocessor.json").read_text())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return respond_each(requests, partial(preprocess, self._config))
