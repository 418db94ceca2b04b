"""Attention of a UNet's transformer blocks where diffusers' own does not do: in half precision, and for IP-Adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusion_builder.components.base import Model


class UpcastAttention:
    """Plain attention that honours `upcast_attention`, which diffusers' fused one ignores.

    SD 2.1's products of queries and keys exceed 65504, so that half precision gives black pictures.
    """

    def __call__(
        self,
        attn: Model,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, N, D], context [B, M, E] → [B, N, D]; there are no masks in these UNets."""
        del attention_mask
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states)
        return project(attn, attend(attn, query, attn.to_k(context), attn.to_v(context)))


class ReferenceAttention(nn.Module):
    """Decoupled cross attention of IP-Adapter (arXiv 2308.06721, eq. 5) with a weight per sample and place.

    diffusers' own takes one number and one mask for the whole batch.

    Args:
        to_key: of the reference's tokens.
        to_value: of the reference's tokens.
        level: how often the latent has been halved where this attention is.
    """

    def __init__(self, to_key: nn.Module, to_value: nn.Module, level: int) -> None:
        super().__init__()
        self.to_key = to_key
        self.to_value = to_value
        self.level = level
        # [B, N, 1], set before each call: an attention processor is only given what diffusers knows of.
        self.weight: torch.Tensor | None = None

    def forward(
        self,
        attn: Model,
        hidden_states: torch.Tensor,
        encoder_hidden_states: tuple[torch.Tensor, list[torch.Tensor]],
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, N, D], text [B, M, E] and references [B, R, T, E] → [B, N, D]."""
        del attention_mask
        text, (reference,) = encoder_hidden_states
        image = reference.flatten(1, 2)
        query = attn.to_q(hidden_states)
        base = attend(attn, query, attn.to_k(text), attn.to_v(text))
        shown = attend(attn, query, self.to_key(image), self.to_value(image))
        assert self.weight is not None  # noqa: S101 - set by the denoiser before each call
        return project(attn, base + self.weight.to(base.dtype) * shown)


def attend(attn: Model, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Multi-head attention, [B, N, D], [B, M, D], [B, M, D] → [B, N, D]; in float32 where the model asks for it."""
    dtype = query.dtype
    if attn.upcast_attention:
        query, key, value = query.float(), key.float(), value.float()
    split = (attn.heads, query.shape[-1] // attn.heads)
    heads = [torch.unflatten(tensor, -1, split).transpose(1, 2) for tensor in (query, key, value)]
    mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    merged: torch.Tensor = mixed.transpose(1, 2).flatten(2).to(dtype)
    return merged


def project(attn: Model, hidden: torch.Tensor) -> torch.Tensor:
    """Output projection; dropout does nothing in evaluation."""
    result: torch.Tensor = attn.to_out[0](hidden) / attn.rescale_output_factor
    return result


def upcast(model: Model) -> None:
    """Give every attention of a UNet that the configuration wants in float32 a processor that does so."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.attention_processor import AttnProcessor

    if not model.config.upcast_attention:
        return
    # Attention outside of transformer blocks has norms and shapes of its own, which this processor of diffusers knows.
    model.set_attn_processor(AttnProcessor())
    for block in model.modules():
        if isinstance(block, BasicTransformerBlock):
            attentions: tuple[Model, ...] = (block.attn1, block.attn2)
            for attn in attentions:
                if attn is not None:
                    attn.processor = UpcastAttention()
