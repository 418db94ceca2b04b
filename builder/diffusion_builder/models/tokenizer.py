"""1_tokenizer: prompt and negative prompt → token ids [B, 2, L], the negative one first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from .triton_io import Array, RequestError, each, read, texts

if TYPE_CHECKING:
    from collections.abc import Mapping


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the tokenizer that lies beside this file; padding and truncation are part of it."""
        self._tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return each(requests, self._ids)

    def _ids(self, request: Any) -> Mapping[str, Array]:  # noqa: ANN401 - Triton's objects are untyped
        prompt = read(request, "prompt")
        if prompt is None or prompt.size == 0:
            raise RequestError("prompt is empty: send BYTES of shape [B, 1] with at least one prompt")
        positive = texts(prompt)
        given = read(request, "negative_prompt")
        negative = [""] * len(positive) if given is None else texts(given)
        if len(negative) != len(positive):
            raise RequestError(f"negative_prompt has {len(negative)} texts for {len(positive)} prompts: send one each")
        encodings = self._tokenizer.encode_batch(
            [text for pair in zip(negative, positive, strict=True) for text in pair]
        )
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        return {"input_ids": ids.reshape(len(positive), 2, -1)}
