"""What diffusers' pipelines of each family are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffusion_builder.components import lora, parts, text_encoder
from diffusion_builder.parity import windows
from diffusion_builder.sources import read_json
from diffusion_builder.sources.layout import MODEL_INDEX
from diffusion_contract.enums import ModelFamily
from diffusion_contract.python_models import GENERATE, IMG2IMG, INPAINT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusion_builder.parity.provenance import Provenance
    from diffusion_builder.parity.requests import TestRequest

# The libraries have no types.
_DIFFUSERS: Any = diffusers
_TEXT: Any = CLIPTextModel
_POOLED_TEXT: Any = CLIPTextModelWithProjection
_TOKENIZER: Any = CLIPTokenizer
LOCAL: Mapping[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
# Class name without the family and the word Pipeline, by the task.
_TASKS: Mapping[str, str] = {GENERATE: "", IMG2IMG: "Img2Img", INPAINT: "Inpaint"}


@dataclass(frozen=True)
class OneTextEncoder:
    """Stable Diffusion 1.x and 2.x.

    Args:
        provenance: folders and settings.
    """

    provenance: Provenance
    prefix: str = field(default="StableDiffusion", init=False)

    def pipeline_class(self, task: str, *, is_controlled: bool) -> Any:  # noqa: ANN401 - the library has no types
        """The class of a task."""
        return getattr(_DIFFUSERS, f"{self.prefix}{'ControlNet' if is_controlled else ''}{_TASKS[task]}Pipeline")

    @cached_property
    def components(self) -> Mapping[str, Any]:
        """Text encoder and tokenizer, with LoRAs and clip skip as for export."""
        model = _TEXT.from_pretrained(self.provenance.folders[parts.TEXT_ENCODER], **LOCAL).eval()
        lora.merge(model, parts.TEXT_ENCODER, self.provenance.loras)
        if self.provenance.clip_skip:
            # diffusers' own clip_skip looks for a layer that this version of transformers calls otherwise.
            text_encoder.drop_layers(model, self.provenance.clip_skip)
        return {
            "text_encoder": model,
            "tokenizer": self._tokenizer("tokenizer"),
            "safety_checker": None,
            "requires_safety_checker": False,
        }

    def arguments(self, _request: TestRequest) -> Mapping[str, Any]:
        """Arguments of a call that only this family has."""
        return {}

    def texts(self, positive: Sequence[str], negative: Sequence[str]) -> Mapping[str, Any]:
        """Arguments of a call with these prompts."""
        if not self.provenance.long_prompts:
            return {"prompt": list(positive), "negative_prompt": list(negative)}
        return self._windows([*positive, *negative], len(positive))

    def _windows(self, texts: Sequence[str], positives: int) -> Mapping[str, Any]:
        """Embeddings of texts of several windows."""
        ids = windows.window_ids(self.components["tokenizer"], texts)
        embeddings = windows.hidden_states(self.components["text_encoder"], ids)
        return {"prompt_embeds": embeddings[:positives], "negative_prompt_embeds": embeddings[positives:]}

    def _tokenizer(self, name: str) -> Any:  # noqa: ANN401 - the library has no types
        return _TOKENIZER.from_pretrained(self.provenance.checkpoint / name, local_files_only=True)


@dataclass(frozen=True)
class TwoTextEncoders(OneTextEncoder):
    """Stable Diffusion XL."""

    prefix: str = field(default="StableDiffusionXL", init=False)

    @cached_property
    def components(self) -> Mapping[str, Any]:
        """Text encoders and tokenizers, with LoRAs as for export."""
        sources = {parts.TEXT_ENCODER: _TEXT, parts.TEXT_ENCODER_2: _POOLED_TEXT}
        models = {}
        for part, model_class in sources.items():
            models[part] = model_class.from_pretrained(self.provenance.folders[part], **LOCAL).eval()
            lora.merge(models[part], part, self.provenance.loras, self.provenance.family)
        index = read_json(self.provenance.checkpoint, MODEL_INDEX)
        return {
            **models,
            "tokenizer": self._tokenizer("tokenizer"),
            "tokenizer_2": self._tokenizer("tokenizer_2"),
            "force_zeros_for_empty_prompt": index.get("force_zeros_for_empty_prompt", True),
            "add_watermarker": False,
        }

    def _windows(self, texts: Sequence[str], positives: int) -> Mapping[str, Any]:
        """Embeddings of texts of several windows, and of their first windows as a whole."""
        sides = []
        for begin, end, skip in ((0, positives, self.provenance.clip_skip), (positives, len(texts), 0)):
            hidden = []
            for tokenizer, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
                ids = windows.window_ids(self.components[tokenizer], texts)[begin:end]
                hidden.append(windows.hidden_states(self.components[encoder], ids, -2 - skip))
            sides.append((torch.cat(hidden, dim=-1), windows.pooled_embeddings(self.components["text_encoder_2"], ids)))
        (positive, pooled), (negative, negative_pooled) = sides
        return {
            "prompt_embeds": positive, "negative_prompt_embeds": negative, "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": negative_pooled,
        }  # fmt: skip

    def arguments(self, request: TestRequest) -> Mapping[str, Any]:
        """Clip skip, and the embeddings of whole prompts."""
        # 0 and none are not the same to diffusers, but compute the same.
        arguments: dict[str, Any] = {"clip_skip": self.provenance.clip_skip or None}
        if request.pooled is not None:
            negative, positive = (torch.from_numpy(request.pooled[:, side].copy()) for side in (0, 1))
            arguments |= {"pooled_prompt_embeds": positive, "negative_pooled_prompt_embeds": negative}
        return arguments


def family_of(provenance: Provenance) -> OneTextEncoder:
    """The pipelines that a repository is compared with."""
    is_xl = provenance.family is ModelFamily.STABLE_DIFFUSION_XL
    return TwoTextEncoders(provenance) if is_xl else OneTextEncoder(provenance)
