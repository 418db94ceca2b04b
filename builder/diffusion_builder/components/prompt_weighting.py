"""Weights of tokens, applied to the hidden states of a text encoder as the library of each syntax does it.

A1111 scales each token and then the whole window, so that its mean stays. Compel moves each token away from or towards
the encoding of the empty prompt, and mixes in encodings that leave out texts of weights below 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from diffusion_contract.tensors import WEIGHTING_FACTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_contract.exports import ExportOptions

    # Hidden states [R, L, D] of prompts [R, L] under an attention mask [R, L].
    Encode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


# Dimensions that are open: of prompts with several windows, and of those that Compel encodes more than once.
TEXT_LENGTH, TEXT_MASKS = "text_length", "text_masks"


def weighting_facts(options: ExportOptions) -> dict[str, int]:
    """Facts of a text encoder that is exported with these options."""
    fact = WEIGHTING_FACTS[options.prompt_weighting]
    return {"prompt_weighting": fact} if fact else {}


def scale_windows(hidden: torch.Tensor, weights: torch.Tensor, window: int) -> torch.Tensor:
    """A1111's emphasis.

    Args:
        hidden: [B, 2, K * L, D].
        weights: of the tokens [B, 2, K * L].
        window: tokens L of a window.

    Returns:
        [B, 2, K * L, D]; the mean of each window is that of before.
    """
    windows = hidden.reshape(hidden.shape[0], 2, -1, window, hidden.shape[-1])
    scaled = windows * weights.reshape(weights.shape[0], 2, -1, window, 1)
    before, after = (states.mean(dim=(-2, -1), keepdim=True) for states in (windows, scaled))
    # Weights of 1 change nothing, whatever the mean is.
    ratio = torch.where(after == 0, torch.ones_like(after), before / after)
    return (scaled * ratio).reshape(hidden.shape)


@dataclass(frozen=True)
class CompelInputs:
    """What Compel's weights are computed from.

    Args:
        weights: of the tokens [B, 2, L].
        masks: [B, 2, V, L]: 0 for tokens that an encoding leaves out, 1 for the others.
        mask_weights: of the encodings [B, 2, V].
        empty_ids: the empty prompt [B, L].
    """

    weights: torch.Tensor
    masks: torch.Tensor
    mask_weights: torch.Tensor
    empty_ids: torch.Tensor

    def blend(self, input_ids: torch.Tensor, encode: Encode) -> torch.Tensor:
        """Hidden states [B, 2, L, D] of the prompts [B, 2, L]."""
        length = input_ids.shape[-1]
        rows = input_ids[:, :, None].expand(self.masks.shape).reshape(-1, length)
        masks = (self.masks > 0.5).long().reshape(-1, length)  # noqa: PLR2004 - 0 or 1
        hidden = encode(rows, masks).float()
        empty = encode(self.empty_ids, torch.ones_like(self.empty_ids)).float()
        hidden = hidden.reshape(*self.masks.shape, hidden.shape[-1])
        weights, base = self.weights[:, :, None, :, None], empty[:, None, None]
        weighted = torch.where(weights == 1, hidden, base + (hidden - base) * weights)
        return (weighted * self.mask_weights[..., None, None]).sum(dim=2)
