"""1_preprocessor: pictures and masks of a request → what the engines read; only what was asked for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .inputs import InputError
from .preprocess import Settings, preprocess
from .triton_io import Array, RequestError, each, read

if TYPE_CHECKING:
    from collections.abc import Mapping


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the settings that lie beside this file."""
        self._settings = Settings.from_json(Path(__file__).with_name("preprocessor.json").read_text())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return each(requests, self._preprocess)

    def _preprocess(self, request: Any) -> Mapping[str, Array]:  # noqa: ANN401 - Triton's objects are untyped
        try:
            return preprocess(self._settings, partial(read, request), request.requested_output_names())
        except InputError as error:
            raise RequestError(str(error)) from error
