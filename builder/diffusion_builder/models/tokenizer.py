"""1_tokenizer: prompt and negative prompt → token ids [B, 2, K * L], the negative one first; of one tokenizer or two.

Where prompts have weights, also what the text encoders weigh with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidRequest
from .prompt_tokens import PromptTokens, TokenizerConfig
from .python_models import NEGATIVE_PROMPT, NEGATIVE_PROMPT_2, PROMPT, PROMPT_2
from .request_inputs import RequestInputs, decode_texts
from .tensors import INPUT_IDS, INPUT_IDS_2, SECOND_WEIGHTING, WEIGHTING
from .triton_io import Array, respond_each

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from . import tensors
    from .request_inputs import ReadTensor

# What every id of a prompt that is encoded as zeros is subtracted from: negative, and a refiner still reads it.
_ZERO_ID = -1


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Load what lies beside this file: one tokenizer or two, and settings; padding is part of the tokenizers."""
        folder = Path(__file__).parent
        self._config = TokenizerConfig.load(folder)
        self._tokens = PromptTokens(folder / "tokenizer.json", self._config)
        second = folder / "tokenizer_2.json"
        self._second = PromptTokens(second, self._config) if second.exists() else None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return respond_each(requests, self._tokenize)

    def _tokenize(self, read: ReadTensor, output_names: Collection[str]) -> Mapping[str, Array]:
        prompts = read(PROMPT.name)
        if prompts is None or prompts.size == 0:
            raise InvalidRequest("prompt is missing or empty: send BYTES of shape [B, 1] with at least one prompt")
        positive = decode_texts(PROMPT.name, prompts)
        inputs = RequestInputs(read, len(positive))
        negative = inputs.texts(NEGATIVE_PROMPT, "")
        first = _Texts(self._tokens, negative, positive)
        if self._second is None:
            return first.outputs(INPUT_IDS, WEIGHTING, output_names, first.windows)
        second_negative = inputs.optional_texts(NEGATIVE_PROMPT_2)
        second_positive = inputs.optional_texts(PROMPT_2)
        second = _Texts(
            self._second,
            negative if second_negative is None else second_negative,
            positive if second_positive is None else second_positive,
        )
        # The features of both encoders lie side by side.
        length = max(first.windows, second.windows)
        outputs = first.outputs(INPUT_IDS, WEIGHTING, output_names, length)
        outputs |= second.outputs(INPUT_IDS_2, SECOND_WEIGHTING, output_names, length)
        return self._zero_negative(read, outputs) if self._config.zero_negative else outputs

    @staticmethod
    def _zero_negative(read: ReadTensor, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Mark negative prompts that are left out, as diffusers' `force_zeros_for_empty_prompt` means."""
        if read(NEGATIVE_PROMPT.name) is not None:
            return outputs
        if read(NEGATIVE_PROMPT_2.name) is not None:
            raise InvalidRequest("negative_prompt_2 needs negative_prompt: send that too, empty if need be")
        outputs[INPUT_IDS.name][:, 0] = _ZERO_ID
        outputs[INPUT_IDS_2.name][:, 0] = _ZERO_ID - outputs[INPUT_IDS_2.name][:, 0]
        return outputs


class _Texts:
    """Both prompts of every sample, by one tokenizer."""

    def __init__(self, tokens: PromptTokens, negative: Sequence[str], positive: Sequence[str]) -> None:
        self._tokens = tokens
        self._texts = [text for pair in zip(negative, positive, strict=True) for text in pair]
        pairs = zip(
            tokens.encode(NEGATIVE_PROMPT.name, negative), tokens.encode(PROMPT.name, positive), strict=True
        )  # fmt: skip
        self._prompts = [prompt for pair in pairs for prompt in pair]

    @property
    def windows(self) -> int:
        """Tokens of the longest prompt: all others get as many."""
        return max(len(prompt.ids) for prompt in self._prompts)

    def outputs(
        self, ids: tensors.Tensor, weighting: tensors.Weighting, names: Collection[str], length: int
    ) -> dict[str, Array]:
        """Ids, and of what the text encoders weigh with the requested tensors.

        Args:
            ids: of this encoder.
            weighting: tensors of this encoder.
            names: the requested outputs.
            length: tokens of each prompt.
        """
        prompts = [self._tokens.extend(prompt, length) for prompt in self._prompts]
        makers: Mapping[tensors.Tensor, Callable[[], Array]] = {
            weighting.weights: lambda: _pairs([prompt.weights for prompt in prompts]),
            weighting.masks: lambda: _pairs(self._masked(1.0, [prompt.masked.masks for prompt in prompts])),
            weighting.mask_weights: lambda: _pairs(self._masked(0.0, [prompt.masked.weights for prompt in prompts])),
            weighting.empty_ids: lambda: np.tile(self._tokens.empty, (len(prompts) // 2, 1)),
            weighting.unparsed_ids: lambda: _pairs(list(self._tokens.raw(self._texts))),
        }
        outputs = {tensor.name: make() for tensor, make in makers.items() if tensor.name in names}
        return outputs | {ids.name: _pairs([prompt.ids for prompt in prompts])}

    @staticmethod
    def _masked(fill: float, arrays: Sequence[Array]) -> list[Array]:
        """Give all prompts as many masks as the one that has most, each of no effect."""
        most = max(map(len, arrays))
        return [
            np.pad(array, ((0, most - len(array)), *[(0, 0)] * (array.ndim - 1)), constant_values=fill)
            for array in arrays
        ]


def _pairs(arrays: Sequence[Array]) -> Array:
    """Of all prompts [B, 2, ...]."""
    stacked = np.stack(arrays)
    return stacked.reshape(-1, 2, *stacked.shape[1:])
