"""A tiny checkpoint of Stable Diffusion XL's architecture, with random weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.support.builder import parts
from tests.support.builder.checkpoints import write_tokenizer, write_vae

if TYPE_CHECKING:
    from pathlib import Path

# Tokens, features of both encoders, and features of the embedding of a whole prompt.
TEXT = (16, 72, parts.POOLED_WIDTH)
_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.36.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": False, "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "set_alpha_to_one": False, "timestep_spacing": "leading",
}  # fmt: skip


def write_xl_checkpoint(folder: Path, unet: str = "sdxl", *, steps_offset: int = 1, force_zeros: bool = True) -> Path:
    """Write a complete checkpoint in diffusers layout.

    Args:
        folder: where it goes.
        unet: of parts.UNETS.
        steps_offset: of the scheduler.
        force_zeros: whether left out negative prompts are zeros.
    """
    tokens = write_tokenizer(folder / "tokenizer")
    # As in the original, the second tokenizer pads with another token.
    write_tokenizer(folder / "tokenizer_2", padding="!")
    _write_text_encoders(folder, tokens)
    parts.unet(unet)(folder / "unet")
    write_vae(folder / "vae")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({**_SCHEDULER, "steps_offset": steps_offset})
    )
    (folder / "model_index.json").write_text(json.dumps({**_INDEX, "force_zeros_for_empty_prompt": force_zeros}))
    return folder


def _write_text_encoders(folder: Path, tokens: int) -> None:
    shared: dict[str, Any] = {
        "vocab_size": tokens, "intermediate_size": 64, "num_attention_heads": 2, "max_position_embeddings": TEXT[0],
        "bos_token_id": tokens - 5, "eos_token_id": tokens - 4,
    }  # fmt: skip
    torch.manual_seed(0)
    CLIPTextModel(CLIPTextConfig(hidden_size=32, projection_dim=32, num_hidden_layers=3, **shared)).save_pretrained(
        folder / "text_encoder"
    )
    CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=40, projection_dim=TEXT[2], num_hidden_layers=4, hidden_act="gelu", **shared)
    ).save_pretrained(folder / "text_encoder_2")
