"""The two CLIP text encoders of Stable Diffusion XL: penultimate layers side by side, and one embedding of all.

diffusers guides with embeddings of zeros where a request has no negative prompt and the checkpoint says
`force_zeros_for_empty_prompt`. The tokenizer then gives the id -1 for each token, and the encoders zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components import configs, lora, parts, sizes, weights
from diffusion_builder.components.base import DTYPES, LoadedModule, TorchModel
from diffusion_builder.components.prompt_weighting import (
    TEXT_LENGTH,
    TEXT_MASKS,
    CompelInputs,
    scale_windows,
    weighting_facts,
)
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract.enums import PromptWeighting
from diffusion_contract.tensors import MAX_TEXT_CHUNKS, REFINER_TRAIT

if TYPE_CHECKING:
    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Precision
    from diffusion_contract.exports import ExportOptions


class _TextEncoder(nn.Module):
    """Hidden states of a CLIP text model.

    Args:
        model: a CLIPTextModel, or a CLIPTextModelWithProjection around one.
        layer: index of the layer whose output is read.
        clip_skip: layers before it that positive prompts leave out; diffusers leaves none out of negative prompts.
    """

    def __init__(self, model: TorchModel, layer: int, clip_skip: int) -> None:
        super().__init__()
        self.model = model
        self._layers = (layer, layer - clip_skip)
        self._hidden: dict[int, torch.Tensor] = {}
        text_model: TorchModel = getattr(model, "text_model", model)
        layers = text_model.encoder.layers
        for index in set(self._layers):
            layers[index].register_forward_hook(partial(self._remember, index))

    def _remember(self, index: int, _layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self._hidden[index] = output

    def encode(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, TorchModel, torch.Tensor]:
        """Encode both prompts of every sample in one batch.

        Returns:
            Hidden states [B, 2, L, D], the model's own output for 2B prompts, and 1 or 0 for each prompt [B, 2, 1].
        """
        is_prompt = (input_ids[:, :, :1] >= 0).float()
        output = self.model(torch.clamp(input_ids, min=0).flatten(0, 1))
        negative, positive = (torch.unflatten(self._hidden[index], 0, (-1, 2)) for index in self._layers)
        self._hidden.clear()
        hidden = torch.stack([negative[:, 0], positive[:, 1]], dim=1).float()
        return hidden * is_prompt[..., None], output, is_prompt

    def encode_windows(
        self, input_ids: torch.Tensor, token_weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, TorchModel, torch.Tensor]:
        """Encode prompts of several windows, and weigh their tokens as A1111 does.

        Args:
            input_ids: [B, 2, K * L].
            token_weights: of each token [B, 2, K * L]; None without weights.

        Returns:
            As `encode`; the model's output is that of each prompt's first window.
        """
        window = self._window
        is_prompt = (input_ids[:, :, :1] >= 0).float()
        ids = torch.clamp(input_ids, min=0).reshape(-1, window)
        output = self.model(ids)
        shape = (input_ids.shape[0], 2, input_ids.shape[2], -1)
        negative, positive = (self._hidden[index].reshape(shape) for index in self._layers)
        self._hidden.clear()
        hidden = torch.stack([negative[:, 0], positive[:, 1]], dim=1).float()
        if token_weights is not None:
            hidden = scale_windows(hidden, token_weights, window)
        return hidden * is_prompt[..., None], output, is_prompt

    def encode_blend(self, input_ids: torch.Tensor, compel: CompelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode prompts as Compel does.

        Returns:
            Hidden states [B, 2, L, D], and 1 or 0 for each prompt [B, 2, 1].
        """
        is_prompt = (input_ids[:, :, :1] >= 0).float()
        ids = torch.clamp(input_ids, min=0)
        # Each prompt has a layer of its own where layers are skipped.
        sides = [compel.blend(ids, partial(self._encode_layer, index)) for index in dict.fromkeys(self._layers)]
        return torch.stack([sides[0][:, 0], sides[-1][:, 1]], dim=1) * is_prompt[..., None], is_prompt

    def _encode_layer(self, index: int, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.model(input_ids, attention_mask=mask)
        hidden = self._hidden[index]
        self._hidden.clear()
        return hidden

    @property
    def _window(self) -> int:
        return int(self.model.config.max_position_embeddings)


class FirstTextEncoder(_TextEncoder):
    """input_ids [B, 2, L] (negative, positive) → first_text_embeddings [B, 2, L, D]."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The hidden states."""
        return self.encode(input_ids)[0]


class FirstWindowedTextEncoder(_TextEncoder):
    """The same of K windows, with token_weights [B, 2, K * L] where prompts have weights."""

    def forward(self, input_ids: torch.Tensor, token_weights: torch.Tensor | None = None) -> torch.Tensor:
        """The hidden states."""
        return self.encode_windows(input_ids, token_weights)[0]


class FirstCompelTextEncoder(_TextEncoder):
    """The same with what `CompelInputs` has."""

    def forward(self, input_ids: torch.Tensor, *weighting: torch.Tensor) -> torch.Tensor:
        """The hidden states."""
        return self.encode_blend(input_ids, CompelInputs(*weighting))[0]


class SecondTextEncoder(_TextEncoder):
    """input_ids_2 [B, 2, L], first_text_embeddings [B, 2, L, D] → text_embeddings [B, 2, L, E], pooled [B, 2, P]."""

    def forward(
        self, input_ids: torch.Tensor, first_text_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Its hidden states behind those of the first one; the pooled embedding is of all layers."""
        hidden, output, is_prompt = self.encode(input_ids)
        pooled = torch.unflatten(output.text_embeds, 0, (-1, 2)).float()
        return torch.cat([first_text_embeddings, hidden], dim=-1), pooled * is_prompt


class RefinedSecondTextEncoder(_TextEncoder):
    """The same, and for a refiner the hidden states and pooled embeddings without zeros.

    Each id of a prompt that is encoded as zeros is -1 - id, so that the refiner gets what its text means.
    """

    def forward(self, input_ids: torch.Tensor, first_text_embeddings: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Embeddings of the denoiser, then those of the refiner, which leaves no layers out."""
        is_prompt = (input_ids[:, :, :1] >= 0).float()
        output = self.model(torch.where(input_ids < 0, -1 - input_ids, input_ids).flatten(0, 1))
        whole, positive = (torch.unflatten(self._hidden[index], 0, (-1, 2)).float() for index in self._layers)
        self._hidden.clear()
        hidden = torch.stack([whole[:, 0], positive[:, 1]], dim=1) * is_prompt[..., None]
        pooled = torch.unflatten(output.text_embeds, 0, (-1, 2)).float()
        return torch.cat([first_text_embeddings, hidden], dim=-1), pooled * is_prompt, whole, pooled


class SecondWindowedTextEncoder(_TextEncoder):
    """The same of K windows; the pooled embedding is that of the first one, without weights."""

    def forward(
        self,
        input_ids: torch.Tensor,
        first_text_embeddings: torch.Tensor,
        token_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Its hidden states behind those of the first one, and the pooled embedding."""
        hidden, output, is_prompt = self.encode_windows(input_ids, token_weights)
        pooled = output.text_embeds.reshape(input_ids.shape[0], 2, -1, output.text_embeds.shape[-1])[:, :, 0].float()
        return torch.cat([first_text_embeddings, hidden], dim=-1), pooled * is_prompt


class SecondCompelTextEncoder(_TextEncoder):
    """The same with what `CompelInputs` has; the pooled embedding is that of the text with its syntax, as Compel's."""

    def forward(
        self, input_ids: torch.Tensor, first_text_embeddings: torch.Tensor, *weighting: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Its hidden states behind those of the first one, and the pooled embedding."""
        *compel, unparsed_ids = weighting
        hidden, is_prompt = self.encode_blend(input_ids, CompelInputs(*compel))
        output = self.model(unparsed_ids.flatten(0, 1))
        self._hidden.clear()
        pooled = torch.unflatten(output.text_embeds, 0, (-1, 2)).float()
        return torch.cat([first_text_embeddings, hidden], dim=-1), pooled * is_prompt


@dataclass(frozen=True)
class _Encoders:
    """Modules of the two encoders that prompts of one kind need."""

    first: type[_TextEncoder]
    second: type[_TextEncoder]

    @classmethod
    def of(cls, options: ExportOptions) -> _Encoders:
        """Those of these options."""
        if options.prompt_weighting is PromptWeighting.COMPEL:
            return cls(FirstCompelTextEncoder, SecondCompelTextEncoder)
        if options.long_prompts or options.prompt_weighting is PromptWeighting.A1111:
            return cls(FirstWindowedTextEncoder, SecondWindowedTextEncoder)
        if options.refiner:
            return cls(FirstTextEncoder, RefinedSecondTextEncoder)
        return cls(FirstTextEncoder, SecondTextEncoder)


def _option_facts(options: ExportOptions) -> dict[str, int]:
    return {**weighting_facts(options), **({"text_chunks": MAX_TEXT_CHUNKS} if options.long_prompts else {})}


def _dynamic(options: ExportOptions) -> frozenset[str]:
    return frozenset({TEXT_MASKS, *([TEXT_LENGTH] if options.long_prompts else [])})


def load_first(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read a CLIPTextModel.

    Raises:
        BadInputError: a wrong configuration, weights or LoRA, or more layers to skip than there are.
    """
    from transformers import CLIPTextModel

    folder, options = material.folders[parts.TEXT_ENCODER], material.options
    config = configs.read(folder, parts.TEXT_ENCODER)
    model = weights.transformers_model(CLIPTextModel, folder, DTYPES[precision])
    lora.merge(model, parts.TEXT_ENCODER, material.loras, options.family)
    layer = _penultimate(parts.TEXT_ENCODER, len(model.encoder.layers), options.clip_skip)
    # The last layer is read by nobody.
    del model.encoder.layers[layer + 1 :]
    facts = {
        "text_length": config["max_position_embeddings"],
        "first_text_width": config["hidden_size"],
        "vocabulary": config["vocab_size"],
        **_option_facts(options),
    }
    module = _Encoders.of(options).first(model, layer, options.clip_skip)
    return LoadedModule(module, facts, {"tokens": config["vocab_size"]}, _dynamic(options), precision)


def load_second(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read a CLIPTextModelWithProjection.

    Raises:
        BadInputError: as for the first one, or nothing says how wide that is.
    """
    from transformers import CLIPTextModelWithProjection

    folder, options = material.folders[parts.TEXT_ENCODER_2], material.options
    config = configs.read(folder, parts.TEXT_ENCODER_2)
    first_text_width = material.sizes.get("first_text_width", 0)
    if not first_text_width:
        raise BadInputError(
            Reason.MISSING_COMPONENT,
            "text_encoder_2 needs the first text encoder beside it: no source has the folder text_encoder",
        )
    model = weights.transformers_model(CLIPTextModelWithProjection, folder, DTYPES[precision])
    lora.merge(model, parts.TEXT_ENCODER_2, material.loras, options.family)
    layer = _penultimate(parts.TEXT_ENCODER_2, len(model.text_model.encoder.layers), options.clip_skip)
    facts = sizes.second_text_facts(config, first_text_width) | {"vocabulary_2": config["vocab_size"]}
    facts |= _option_facts(options)
    if options.refiner:
        facts[REFINER_TRAIT] = config["hidden_size"]
    module = _Encoders.of(options).second(model, layer, options.clip_skip)
    return LoadedModule(module, facts, {"tokens": config["vocab_size"]}, _dynamic(options), precision)


def _penultimate(part: str, layers: int, clip_skip: int) -> int:
    """Index of the last layer but one.

    Raises:
        BadInputError: so many layers cannot be skipped before it.
    """
    if clip_skip + 1 >= layers:
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"clipSkip is {clip_skip}, but {part} has {layers} layers, of which the last one is never read",
        )
    return layers - 2
