"""Embeddings of prompts of several windows by the libraries' own models: diffusers itself cuts prompts after one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from diffusion_contract.tensors import MAX_TEXT_CHUNKS

if TYPE_CHECKING:
    from collections.abc import Sequence

# The libraries have no types.
_Library = Any


def window_ids(tokenizer: _Library, texts: Sequence[str]) -> torch.Tensor:
    """Ids [n, K, L] of texts, each in windows of L tokens with start, end and padding."""
    length = tokenizer.model_max_length
    inner = [tokenizer(text, truncation=False).input_ids[1:-1] for text in texts]
    windows = min(MAX_TEXT_CHUNKS, max(1, *(-(-len(ids) // (length - 2)) for ids in inner)))
    return torch.tensor(
        [[_window(tokenizer, ids, index * (length - 2)) for index in range(windows)] for ids in inner]
    )  # fmt: skip


def _window(tokenizer: _Library, ids: Sequence[int], begin: int) -> list[int]:
    length = tokenizer.model_max_length
    window = [tokenizer.bos_token_id, *ids[begin : begin + length - 2], tokenizer.eos_token_id]
    return window + [tokenizer.pad_token_id] * (length - len(window))


@torch.no_grad()
def hidden_states(model: _Library, ids: torch.Tensor, layer: int | None = None) -> torch.Tensor:
    """Embeddings [n, K * L, D] of windows [n, K, L].

    Args:
        model: a text encoder.
        ids: of the texts.
        layer: index among all hidden states; None for the output, with the last norm.
    """
    output = model(ids.flatten(0, 1), output_hidden_states=True)
    hidden: torch.Tensor = output[0] if layer is None else output.hidden_states[layer]
    return hidden.reshape(ids.shape[0], -1, hidden.shape[-1])


@torch.no_grad()
def pooled_embeddings(model: _Library, ids: torch.Tensor) -> torch.Tensor:
    """Embeddings [n, P] of the first windows."""
    pooled: torch.Tensor = model(ids[:, 0]).text_embeds
    return pooled
