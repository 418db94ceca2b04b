"""Deep features of a UNet: what its last layers get from below, which a later call may use again (arXiv 2312.00858).

A full denoiser hands them out. A shallow one has only the layers that are computed in every call: the first of the
first down block, and as many and one more of the last up block. The skip connections between these are of its own call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_contract import tensors

if TYPE_CHECKING:
    from diffusion_builder.components.base import Facts, TorchModel


class DeepFeatures(nn.Module):
    """Deep features of one call: recorded from a full UNet, or in the place of a shallow one's middle.

    [2B, D, h, w] with those of the negative prompts first, [B, D, h, w] without.

    Args:
        channels: D.
        facts: of every variant of the denoiser with these features.
    """

    def __init__(self, channels: int, facts: Facts) -> None:
        super().__init__()
        self.channels = channels
        self.facts = facts
        self.features: torch.Tensor | None = None

    def forward(self, _sample: torch.Tensor, _time: torch.Tensor) -> torch.Tensor:
        """The features, whatever comes from above: called as a UNet calls its middle block."""
        assert self.features is not None  # noqa: S101 - set by the denoiser before each call
        return self.features

    def record(self, _layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Hook before a layer of the last up block: its input is the features and a skip connection."""
        self.features = inputs[0][:, : self.channels]

    def recorded(self, *, has_negative: bool) -> tuple[torch.Tensor, ...]:
        """Those of the positive and, where there are such, of the negative prompts, [B, D, h, w] each in float32."""
        assert self.features is not None  # noqa: S101 - the UNet has been called
        features = self.features.float()
        return tuple(reversed(features.chunk(2))) if has_negative else (features,)


def install(model: TorchModel, layers: int, *, is_shallow: bool) -> DeepFeatures:
    """Record the deep features of a UNet, or leave it nothing but the layers that use them.

    Args:
        model: changed in place, with all that is added to its layers.
        layers: of the last up block that every call computes.
        is_shallow: whether the other layers are removed.
    """
    first, last = model.down_blocks[0], model.up_blocks[-1]
    # The other part of a layer's input is a skip connection, which has the width of the first block.
    channels = last.resnets[-layers].in_channels - model.config.block_out_channels[0]
    reads_text = _reads_text(last) or (layers > 1 and _reads_text(first))
    facts = {"shallow_layers": layers, tensors.DEEP_FEATURES_TRAIT: channels}
    deep = DeepFeatures(channels, facts | ({tensors.SHALLOW_TEXT_TRAIT: 1} if reads_text else {}))
    if is_shallow:
        _remove_layers(model, layers, deep)
        if not reads_text:
            # An IP-Adapter's projection of what no layer reads.
            model.encoder_hid_proj = None
    else:
        last.resnets[-layers].register_forward_pre_hook(deep.record)
    return deep


def _reads_text(block: TorchModel) -> bool:
    """Whether there is cross attention in a block; Stable Diffusion XL has none at the latent's own size."""
    return bool(getattr(block, "has_cross_attention", False))


def _remove_layers(model: TorchModel, layers: int, middle: DeepFeatures) -> None:
    first, last = model.down_blocks[0], model.up_blocks[-1]
    for block, kept_layers in ((first, slice(layers - 1)), (last, slice(-layers, None))):
        for name in ("resnets", "attentions"):
            if hasattr(block, name):
                setattr(block, name, nn.ModuleList(list(getattr(block, name))[kept_layers]))
    first.downsamplers = None
    model.down_blocks, model.up_blocks, model.mid_block = nn.ModuleList([first]), nn.ModuleList([last]), middle
