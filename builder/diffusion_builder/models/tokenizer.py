"""1_tokenizer: prompt and negative prompt → token ids [B, 2, L], the negative one first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from .errors import InvalidRequest
from .python_models import NEGATIVE_PROMPT, PROMPT
from .request_inputs import RequestInputs, decode_texts
from .tensors import INPUT_IDS
from .triton_io import Array, respond_each

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .request_inputs import ReadTensor


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load the tokenizer that lies beside this file; padding and truncation are part of it."""
        self._tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return respond_each(requests, self._tokenize)

    def _tokenize(self, read: ReadTensor, _output_names: Collection[str]) -> Mapping[str, Array]:
        prompts = read(PROMPT.name)
        if prompts is None or prompts.size == 0:
            raise InvalidRequest("prompt is missing or empty: send BYTES of shape [B, 1] with at least one prompt")
        positive = decode_texts(PROMPT.name, prompts)
        negative = RequestInputs(read, len(positive)).texts(NEGATIVE_PROMPT, "")
        texts = [text for pair in zip(negative, positive, strict=True) for text in pair]
        ids = np.array([encoding.ids for encoding in self._tokenizer.encode_batch(texts)], np.int64)
        return {INPUT_IDS.name: ids.reshape(len(positive), 2, -1)}
