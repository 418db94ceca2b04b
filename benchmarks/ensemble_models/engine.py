# ruff: noqa: I001 - what is imported last is found after the import before it
"""An engine on a GPU in Triton's Python backend: the served thin model, with another session."""

from __future__ import annotations

from pathlib import Path

from .graphs import Session, weights
from diffusion_builder.models import onnx_engine


class TritonPythonModel(onnx_engine.TritonPythonModel):
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the component whose weights lie beside this file."""
        self._session = Session(weights(Path(__file__).parent))
        self._inputs = self._session.inputs
