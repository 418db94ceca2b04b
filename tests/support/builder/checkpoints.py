"""Checkpoints for tests: the demo checkpoint, and tiny ones with random weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.support.paths import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

DEMO = EXAMPLES / "demo-checkpoint"
# The library has no types.
_DIFFUSERS: Any = diffusers
_LENGTH = 16
_WIDTH = 32


def _vocabulary() -> list[str]:
    """Bytes, bytes that end a word, and the two special tokens, as byte-level BPE spells them."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    invisible = [byte for byte in range(256) if byte not in visible]
    symbols = [chr(byte) for byte in visible] + [chr(256 + index) for index in range(len(invisible))]
    return [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]


def write_tokenizer(folder: Path, padding: str = "<|endoftext|>") -> int:
    """Write a CLIP tokenizer with three merges and this token for padding; returns the size of its vocabulary."""
    folder.mkdir(parents=True)
    (folder / "merges.txt").write_text("#version: 0.2\nc i\nr e\nre d</w>\n")
    vocabulary = {token: index for index, token in enumerate([*_vocabulary(), "ci", "re", "red</w>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": _LENGTH,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": padding,
            }
        )
    )
    return len(vocabulary)


def write_text_encoder(folder: Path, tokens: int, seed: int = 0, width: int = _WIDTH) -> None:
    """Write a random CLIP text encoder of two layers."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=width, intermediate_size=64, projection_dim=width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=_LENGTH, bos_token_id=tokens - 5, eos_token_id=tokens - 4,
    )  # fmt: skip
    model = CLIPTextModel(config)
    # As those of trained ones, means of its features are not 0.
    torch.nn.init.uniform_(model.final_layer_norm.bias, 0.2, 0.4)
    model.save_pretrained(folder)


def write_unet(folder: Path, seed: int = 0) -> None:
    """Write a random UNet of three resolutions."""
    torch.manual_seed(seed)
    _DIFFUSERS.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=_WIDTH, attention_head_dim=8, norm_num_groups=16,
    ).save_pretrained(folder)  # fmt: skip


def write_vae(folder: Path, seed: int = 0) -> None:
    """Write a random KL autoencoder with eight pixels per latent."""
    torch.manual_seed(seed)
    _DIFFUSERS.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16, 32, 32), norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.5,
    ).save_pretrained(folder)  # fmt: skip


def write_checkpoint(folder: Path, seed: int = 0, width: int = _WIDTH) -> Path:
    """Write a complete checkpoint with random weights in diffusers layout; `width` is that of the text encoder."""
    tokens = write_tokenizer(folder / "tokenizer")
    write_text_encoder(folder / "text_encoder", tokens, seed, width)
    write_unet(folder / "unet", seed)
    write_vae(folder / "vae", seed)
    _DIFFUSERS.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    (folder / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "StableDiffusionPipeline",
                "_diffusers_version": "0.36.0",
                "feature_extractor": [None, None],
                "image_encoder": [None, None],
                "requires_safety_checker": False,
                "safety_checker": [None, None],
                "scheduler": ["diffusers", "DDIMScheduler"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            },
            indent=2,
        )
    )
    return folder
