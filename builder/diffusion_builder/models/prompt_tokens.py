"""Prompts as token ids and weights, in windows of the text encoder; numpy and tokenizers only.

Every window begins with the start token, ends with the end token and is padded. Texts longer than all windows are cut.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from . import a1111_syntax, compel_syntax
from .enums import PromptWeighting
from .errors import InvalidRequest
from .tensors import MAX_TEXT_MASKS
from .weighted_text import Break, Fragment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .weighted_text import Part

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
# A1111 moves the tokens behind a comma to the next window, where so many of them or fewer would be torn apart.
_COMMA_REACH = 20
# Weight 0 would need an infinite factor.
_SMALLEST_WEIGHT = 1e-5


@dataclass(frozen=True)
class TokenizerConfig:
    """The contents of `tokenizers.json`.

    Args:
        zero_negative: whether negative prompts that are left out are encoded as zeros.
        windows: that a prompt may have at most.
        weighting: syntax of weights in prompts.
    """

    zero_negative: bool = False
    windows: int = 1
    weighting: PromptWeighting = PromptWeighting.NONE

    @classmethod
    def load(cls, folder: Path) -> TokenizerConfig:
        """Read the file that the builder has written; without it, nothing is set."""
        path = folder / "tokenizers.json"
        if not path.exists():
            return cls()
        body = json.loads(path.read_text(encoding="utf-8"))
        weighting = PromptWeighting(body.get("promptWeighting", PromptWeighting.NONE))
        return cls(body.get("zeroNegative", False), body.get("windows", 1), weighting)


@dataclass(frozen=True)
class MaskedText:
    """What Compel computes texts of weights below 1 from.

    Args:
        masks: [V, L] each 0 for the tokens of one fragment that is left out, else 1; the first one leaves none out.
        weights: [V] of the text without them; their sum is 1.
    """

    masks: Floats
    weights: Floats


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt.

    Args:
        ids: [K * L].
        weights: [K * L], 1 for tokens that are not of the prompt.
        masked: of Compel.
    """

    ids: Ids
    weights: Floats
    masked: MaskedText = field(default_factory=lambda: MaskedText(*[np.zeros((0, 0), np.float32)] * 2))


class PromptTokens:
    """A tokenizer that pads and truncates to one window, used for several windows and for parts of a prompt.

    Args:
        path: of the tokenizer's file.
        config: settings.
    """

    def __init__(self, path: Path, config: TokenizerConfig) -> None:
        self._window, self._plain, self._config = Tokenizer.from_file(str(path)), Tokenizer.from_file(str(path)), config
        self._plain.no_truncation()
        self._plain.no_padding()
        self.empty: Ids = np.array(self._window.encode("").ids, np.int64)
        self._start, self._end, *padding = self.empty.tolist()
        self._pad = padding[-1] if padding else self._end
        self._room = len(self.empty) - 2
        self._comma = self._pieces([","])[0][-1:]

    def raw(self, texts: Sequence[str]) -> Ids:
        """Ids [n, L] of texts in one window each, without any syntax."""
        return np.array([encoding.ids for encoding in self._window.encode_batch(list(texts))], np.int64)

    def encode(self, name: str, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode prompts; they may have different numbers of windows.

        Args:
            name: of the input, for messages.
            texts: one for each sample.

        Raises:
            InvalidRequest: syntax that is not supported, by name.
        """
        try:
            if self._config.weighting is PromptWeighting.COMPEL:
                return [self._compel(compel_syntax.parse(text)) for text in texts]
            if self._config.weighting is PromptWeighting.A1111:
                return [self._a1111(a1111_syntax.parse(text)) for text in texts]
        except InvalidRequest as error:
            raise InvalidRequest(str(error).replace("prompt", name, 1)) from error
        if self._config.windows == 1:
            ones = np.ones(len(self.empty), np.float32)
            return [EncodedPrompt(ids, ones) for ids in self.raw(texts)]
        return [self._join(self._split(ids)) for ids in self._pieces(texts)]

    def extend(self, prompt: EncodedPrompt, length: int) -> EncodedPrompt:
        """The prompt with empty windows behind it, K * L tokens in all."""
        missing = (length - len(prompt.ids)) // len(self.empty)
        if not missing:
            return prompt
        ids = np.concatenate([prompt.ids, np.tile(self.empty, missing)])
        return EncodedPrompt(ids, np.pad(prompt.weights, (0, length - len(prompt.weights)), constant_values=1.0))

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without start, end and padding."""
        encodings = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in encodings]

    def _split(self, ids: list[int]) -> list[list[tuple[int, float]]]:
        weighted = [(token, 1.0) for token in ids]
        return [weighted[begin : begin + self._room] for begin in range(0, max(1, len(ids)), self._room)]

    def _weighted(self, parts: Sequence[Part]) -> list[list[tuple[int, float]] | None]:
        """Tokens of each part; None for a break."""
        ids = iter(self._pieces([part.text for part in parts if isinstance(part, Fragment)]))
        return [
            None if isinstance(part, Break) else [(token, part.weight) for token in next(ids)] for part in parts
        ]  # fmt: skip

    def _a1111(self, parts: Sequence[Part]) -> EncodedPrompt:
        if self._config.windows == 1 and any(isinstance(part, Break) for part in parts):
            raise InvalidRequest("prompt has BREAK, which needs a second window: build the pipeline with longPrompts")
        windows: list[list[tuple[int, float]]] = [[]]
        comma = 0
        for tokens in self._weighted(parts):
            if tokens is None:
                windows.append([])
                comma = 0
            for token in tokens or ():
                if [token[0]] == self._comma:
                    comma = len(windows[-1]) + 1
                elif len(windows[-1]) == self._room and comma and self._room - comma < _COMMA_REACH:
                    windows.append(windows[-1][comma:])
                    windows[-2] = windows[-2][:comma]
                    comma = 0
                if len(windows[-1]) == self._room:
                    windows.append([])
                    comma = 0
                windows[-1].append(token)
        # Nothing follows the last break.
        return self._join(windows if windows[-1] or len(windows) == 1 else windows[:-1])

    def _compel(self, parts: Sequence[Fragment]) -> EncodedPrompt:
        pieces = self._weighted(parts)
        tokens = [token for piece in pieces for token in piece or ()]
        prompt = self._join([tokens[: self._room]])
        masks, factors = [np.ones(len(self.empty), np.float32)], [1.0]
        begin = 1
        for part, piece in zip(parts, pieces, strict=True):
            end = begin + len(piece or ())
            if part.weight < 1 and begin < min(end, len(self.empty) - 1):
                masks.append(np.ones(len(self.empty), np.float32))
                # Compel leaves the end token of a window out as well, where a fragment does not fit into it.
                masks[-1][begin : end if end < len(self.empty) else None] = 0.0
                factors.append(math.tan((1.0 - max(_SMALLEST_WEIGHT, part.weight)) * math.pi / 2))
            begin = end
        if len(masks) > MAX_TEXT_MASKS:
            raise InvalidRequest(
                f"prompt has {len(masks) - 1} texts of weights below 1: at most {MAX_TEXT_MASKS - 1} are supported"
            )
        weights = np.array(factors, np.float32)
        return EncodedPrompt(prompt.ids, prompt.weights, MaskedText(np.stack(masks), weights / weights.sum()))

    def _join(self, windows: Sequence[Sequence[tuple[int, float]]]) -> EncodedPrompt:
        """Windows side by side, as many as are supported."""
        length = len(self.empty)
        ids, weights = [], []
        for tokens in windows[: self._config.windows]:
            fill = length - 2 - len(tokens)
            ids += [self._start, *(token for token, _ in tokens), self._end, *[self._pad] * fill]
            weights += [1.0, *(weight for _, weight in tokens), *[1.0] * (fill + 1)]
        return EncodedPrompt(np.array(ids, np.int64), np.array(weights, np.float32))
