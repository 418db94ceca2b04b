"""1_tokenizer: prompt and negative prompt → token ids [B, 2, L], the negative one first; of one tokenizer or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from .errors import InvalidRequest
from .python_models import NEGATIVE_PROMPT, NEGATIVE_PROMPT_2, PROMPT, PROMPT_2
from .request_inputs import RequestInputs, decode_texts
from .tensors import INPUT_IDS, INPUT_IDS_2
from .triton_io import Array, respond_each

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .request_inputs import ReadTensor

# Instead of every id of a prompt that is encoded as zeros.
_ZERO_ID = -1


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load what lies beside this file: one tokenizer, or two and their settings; padding is part of them."""
        folder = Path(__file__).parent
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = folder / "tokenizers.json"
        self._second = Tokenizer.from_file(str(folder / "tokenizer_2.json")) if settings.exists() else None
        self._zeroes_negative = settings.exists() and bool(json.loads(settings.read_text())["zeroNegative"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return respond_each(requests, self._tokenize)

    def _tokenize(self, read: ReadTensor, _output_names: Collection[str]) -> Mapping[str, Array]:
        prompts = read(PROMPT.name)
        if prompts is None or prompts.size == 0:
            raise InvalidRequest("prompt is missing or empty: send BYTES of shape [B, 1] with at least one prompt")
        positive = decode_texts(PROMPT.name, prompts)
        inputs = RequestInputs(read, len(positive))
        negative = inputs.texts(NEGATIVE_PROMPT, "")
        ids = {INPUT_IDS.name: _encode(self._tokenizer, negative, positive)}
        if self._second is None:
            return ids
        second_negative = inputs.optional_texts(NEGATIVE_PROMPT_2)
        second_positive = inputs.optional_texts(PROMPT_2)
        ids[INPUT_IDS_2.name] = _encode(
            self._second,
            negative if second_negative is None else second_negative,
            positive if second_positive is None else second_positive,
        )
        return self._zero_negative(read, ids) if self._zeroes_negative else ids

    @staticmethod
    def _zero_negative(read: ReadTensor, ids: Mapping[str, Array]) -> Mapping[str, Array]:
        """Mark negative prompts that are left out, as diffusers' `force_zeros_for_empty_prompt` means."""
        if read(NEGATIVE_PROMPT.name) is not None:
            return ids
        if read(NEGATIVE_PROMPT_2.name) is not None:
            raise InvalidRequest("negative_prompt_2 needs negative_prompt: send that too, empty if need be")
        for array in ids.values():
            array[:, 0] = _ZERO_ID
        return ids


def _encode(tokenizer: Tokenizer, negative: Sequence[str], positive: Sequence[str]) -> Array:
    texts = [text for pair in zip(negative, positive, strict=True) for text in pair]
    ids = np.array([encoding.ids for encoding in tokenizer.encode_batch(texts)], np.int64)
    return ids.reshape(len(positive), 2, -1)
