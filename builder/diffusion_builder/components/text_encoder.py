"""The CLIP text encoder, with clip skip, merged LoRAs and prompts of several windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components import configs, lora, parts, prompt_weighting, sizes, two_text_encoders, weights
from diffusion_builder.components.base import DTYPES, LoadedModule, TorchModel
from diffusion_builder.components.prompt_weighting import TEXT_LENGTH, TEXT_MASKS, weighting_facts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import ModelFamily, PromptWeighting
from diffusion_contract.tensors import MAX_TEXT_CHUNKS

if TYPE_CHECKING:
    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Precision
    from diffusion_contract.exports import ExportOptions


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


class A1111TextEncoder(ChunkedTextEncoder):
    """input_ids, token_weights [B, 2, K*L] → text_embeddings [B, 2, K*L, D], for any K."""

    def forward(self, input_ids: torch.Tensor, token_weights: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Encode all windows, and weigh their tokens."""
        window = self.model.config.max_position_embeddings
        return prompt_weighting.scale_windows(super().forward(input_ids), token_weights, window)


class CompelTextEncoder(TextEncoder):
    """input_ids [B, 2, L] and what `CompelInputs` has → text_embeddings [B, 2, L, D]."""

    def forward(self, input_ids: torch.Tensor, *weighting: torch.Tensor) -> torch.Tensor:
        """Encode the prompts, what remains without each of their weaker texts, and the empty prompt."""
        return prompt_weighting.CompelInputs(*weighting).blend(input_ids, self._encode)

    def _encode(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model(input_ids, attention_mask=mask)[0]
        return hidden


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
    facts = sizes.text_facts(config) | {"vocabulary": config["vocab_size"], **weighting_facts(options)}
    example = {"tokens": config["vocab_size"]}
    if options.long_prompts:
        facts["text_chunks"] = MAX_TEXT_CHUNKS
    dynamic = {TEXT_LENGTH} if options.long_prompts else set()
    return LoadedModule(_encoder(options)(model), facts, example, frozenset({*dynamic, TEXT_MASKS}), precision)


def _encoder(options: ExportOptions) -> type[TextEncoder]:
    if options.prompt_weighting is PromptWeighting.COMPEL:
        return CompelTextEncoder
    if options.prompt_weighting is PromptWeighting.A1111:
        return A1111TextEncoder
    return ChunkedTextEncoder if options.long_prompts else TextEncoder


def drop_layers(model: TorchModel, layers: int) -> None:
    """Drop the last layers, but not the final norm: what diffusers' clip_skip computes, without computing more.

    Raises:
        BadInputError: there are not so many layers.
    """
    have = len(model.encoder.layers)
    if layers >= have:
        raise BadInputError(Reason.INVALID_ARGUMENT, f"clipSkip is {layers}, but the text encoder has {have} layers")
    del model.encoder.layers[have - layers :]
