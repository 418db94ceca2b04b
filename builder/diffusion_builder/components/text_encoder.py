"""The CLIP text encoder, with clip skip, merged LoRAs and prompts of several windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components import configs, lora, parts, sizes, two_text_encoders, weights
from diffusion_builder.components.base import DTYPES, LoadedModule, TorchModel
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import ModelFamily
from diffusion_contract.tensors import MAX_TEXT_CHUNKS

if TYPE_CHECKING:
    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Precision

_TEXT_LENGTH = "text_length"


class TextEncoder(nn.Module):
    """input_ids [B, 2, L] (negative, positive) → text_embeddings [B, 2, L, D]."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Encode both prompts of every sample in one batch."""
        hidden = self.model(input_ids.flatten(0, 1))[0]
        return torch.unflatten(hidden, 0, (-1, 2)).float()


class ChunkedTextEncoder(TextEncoder):
    """input_ids [B, 2, K*L] → text_embeddings [B, 2, K*L, D], for any K.

    Each window of L tokens has its own first and last token and is encoded by itself; the denoiser attends to all.
    """

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Encode all windows of both prompts of every sample in one batch."""
        windows = input_ids.reshape(-1, self.model.config.max_position_embeddings)
        hidden: torch.Tensor = self.model(windows)[0]
        return hidden.reshape(*input_ids.shape, hidden.shape[-1]).float()


def load(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read a CLIPTextModel.

    Raises:
        BadInputError: a wrong configuration, weights or LoRA, or more layers to skip than there are.
    """
    from transformers import CLIPTextModel

    if material.options.family is ModelFamily.STABLE_DIFFUSION_XL:
        return two_text_encoders.load_first(material, precision)
    folder, options = material.folders[parts.TEXT_ENCODER], material.options
    config = configs.read(folder, parts.TEXT_ENCODER)
    model = weights.transformers_model(CLIPTextModel, folder, DTYPES[precision])
    lora.merge(model, parts.TEXT_ENCODER, material.loras)
    if options.clip_skip:
        drop_layers(model, options.clip_skip)
    facts = sizes.text_facts(config) | {"vocabulary": config["vocab_size"]}
    example = {"tokens": config["vocab_size"]}
    if not options.long_prompts:
        return LoadedModule(TextEncoder(model), facts, example, frozenset(), precision)
    facts["text_chunks"] = MAX_TEXT_CHUNKS
    return LoadedModule(ChunkedTextEncoder(model), facts, example, frozenset({_TEXT_LENGTH}), precision)


def drop_layers(model: TorchModel, layers: int) -> None:
    """Drop the last layers, but not the final norm: what diffusers' clip_skip computes, without computing more.

    Raises:
        BadInputError: there are not so many layers.
    """
    have = len(model.encoder.layers)
    if layers >= have:
        raise BadInputError(Reason.INVALID_ARGUMENT, f"clipSkip is {layers}, but the text encoder has {have} layers")
    del model.encoder.layers[have - layers :]
