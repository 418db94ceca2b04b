"""Transformer blocks of a UNet in the form that TensorRT runs fastest, and attention that diffusers' own does not do.

Four things are written differently than diffusers writes them; the numbers are the same but for rounding:

* Attention is two matrix products with a softmax between them, its scale a constant on the queries: what TensorRT
  documents as the shape of graph that it turns into one kernel. torch's exporter computes the scale from shapes.
* Heads of 33 to 63 features are padded with zeros to 64 in self attention, for which TensorRT has a kernel that takes
  0.7 of the time of the one for 40 (Stable Diffusion 1.x at its largest resolution).
* The two halves of a gated feed-forward layer are picked by Gather. Of a Split TensorRT makes two matrix products, for
  whose fused forms it searches ten times as long, and which take longer than one.
* The 1x1 convolutions around the blocks are matrix products over the same tokens, which leaves out two changes of
  layout for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusion_builder.components.base import TorchModel

# Measured on an H200 with TensorRT 10.6: self attention over 4096 tokens, 8 heads, 16 samples takes 1.80 ms with heads
# of 40 features, 1.97 with 48 and 1.41 with 64. Heads of 80 gain nothing by 96 or 128.
_PADDED_FROM, _PADDED_TO = 33, 64


class BlockAttention:
    """Attention of a transformer block, in float32 where the model requires it.

    SD 2.1's products of queries and keys exceed 65504, so that half precision gives black images; diffusers' fused
    attention ignores its `upcast_attention`.
    """

    def __call__(
        self,
        attn: TorchModel,
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
        attn: TorchModel,
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
        reference_output = attend(attn, query, self.to_key(image), self.to_value(image))
        assert self.weight is not None  # noqa: S101 - set by the denoiser before each call
        return project(attn, base + self.weight.to(base.dtype) * reference_output)


class GatedLinear(nn.Module):
    """Linear layer whose second half gates the first by GELU (arXiv 2002.05202, GEGLU), [..., D] → [..., E].

    Measured on an H200 with TensorRT 10.6, feed-forward layer of 320 features, 16 samples of 4096 tokens: 0.45 ms and
    11 seconds to build, with diffusers' split 0.52 ms and 109 seconds.

    Args:
        projection: to twice the features.
    """

    def __init__(self, projection: nn.Linear) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The gated features."""
        halves = torch.unflatten(self.projection(hidden), -1, (2, self.projection.out_features // 2))
        gated: torch.Tensor = halves.select(-2, 0) * functional.gelu(halves.select(-2, 1))
        return gated


def attend(attn: TorchModel, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Multi-head attention, [B, N, D], [B, M, D], [B, M, D] → [B, N, D]; in float32 where the model requires it."""
    dtype = query.dtype
    if attn.upcast_attention:
        query, key, value = query.float(), key.float(), value.float()
    # Sizes of weights are numbers in a trace; those of tensors would be computed in the graph.
    split = (attn.heads, attn.to_q.out_features // attn.heads)
    queries, keys, values = (
        torch.unflatten(tensor, -1, split).transpose(1, 2) for tensor in (query * attn.scale, key, value)
    )
    weights = torch.softmax(queries @ keys.transpose(-1, -2), dim=-1)
    merged: torch.Tensor = (weights @ values).transpose(1, 2).flatten(2).to(dtype)
    return merged


def project(attn: TorchModel, hidden: torch.Tensor) -> torch.Tensor:
    """Output projection; dropout does nothing in evaluation."""
    projected: torch.Tensor = attn.to_out[0](hidden)
    return projected if attn.rescale_output_factor == 1 else projected / attn.rescale_output_factor


def rewrite(model: TorchModel, *, upcast: bool) -> None:
    """Write the transformer blocks of a UNet or ControlNet in the form that is exported.

    Args:
        model: changed in place, with its LoRAs merged.
        upcast: whether it computes in half precision, so that attention in float32 is explicit.
    """
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.attention_processor import AttnProcessor
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    if upcast and model.config.upcast_attention:
        # Attention outside of transformer blocks has norms and shapes of its own, which this one of diffusers knows.
        model.set_attn_processor(AttnProcessor())
    for module in model.modules():
        if isinstance(module, Transformer2DModel):
            _multiply_tokens(module)
        elif isinstance(module, BasicTransformerBlock):
            _rewrite_block(module)


def _rewrite_block(block: TorchModel) -> None:
    from diffusers.models.activations import GEGLU

    for attn in (block.attn1, block.attn2):
        if attn is not None:
            attn.processor = BlockAttention()
    if not block.only_cross_attention:
        _pad_heads(block.attn1)
    first = block.ff.net[0]
    if isinstance(first, GEGLU):
        block.ff.net[0] = GatedLinear(first.proj)


def _multiply_tokens(transformer: TorchModel) -> None:
    """Make matrix products of the 1x1 convolutions before and after the blocks."""
    if not transformer.use_linear_projection:
        transformer.proj_in, transformer.proj_out = (
            _linear(conv.weight.flatten(1), conv.bias) for conv in (transformer.proj_in, transformer.proj_out)
        )
        transformer.use_linear_projection = True


def _pad_heads(attn: TorchModel) -> None:
    """Give heads features that are zero in queries, keys and values and are not read by the output projection."""
    size = attn.to_q.out_features // attn.heads
    if not _PADDED_FROM <= size < _PADDED_TO:
        return
    padding = _PADDED_TO - size
    for name in ("to_q", "to_k", "to_v"):
        layer = getattr(attn, name)
        rows = functional.pad(torch.unflatten(layer.weight, 0, (attn.heads, size)), (0, 0, 0, padding)).flatten(0, 1)
        setattr(attn, name, _linear(rows, _padded_bias(layer.bias, attn.heads, padding)))
    output = attn.to_out[0]
    columns = functional.pad(torch.unflatten(output.weight, 1, (attn.heads, size)), (0, padding)).flatten(1)
    attn.to_out[0] = _linear(columns, output.bias)


def _padded_bias(bias: torch.Tensor | None, heads: int, padding: int) -> torch.Tensor | None:
    if bias is None:
        return None
    return functional.pad(torch.unflatten(bias, 0, (heads, -1)), (0, padding)).flatten()


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A layer with these weights, [out, in] and [out]."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer.eval()
