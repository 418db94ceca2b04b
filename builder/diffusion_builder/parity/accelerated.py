"""diffusers' UNet with calls that compute less: the whole UNet runs, and what a call would not compute is replaced."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusion_contract.spec import Acceleration


@contextmanager
def accelerated(unet: Any, acceleration: Acceleration | None, calls: int) -> Iterator[None]:  # noqa: ANN401 - the library has no types
    """Let the calls of a UNet be those of one loop with this acceleration.

    Args:
        unet: of diffusers; called with the negative prompts first.
        acceleration: None for none.
        calls: of the loop.
    """
    with ExitStack() as hooks:
        if acceleration is not None and acceleration.guidance is not None:
            # As diffusers' guiders count.
            guidance = _Guidance(int(acceleration.guidance.stop * calls))
            hooks.callback(unet.register_forward_hook(guidance.replace).remove)
        if acceleration is not None and acceleration.deep_cache is not None:
            cache = acceleration.deep_cache
            layer = unet.up_blocks[-1].resnets[-cache.layers]
            # The other part of its input is a skip connection, which has the width of the first block.
            channels = layer.in_channels - unet.config.block_out_channels[0]
            reuse = _Reuse(cache.interval, channels)
            hooks.callback(layer.register_forward_pre_hook(reuse.replace).remove)
        yield


@dataclass
class _Guidance:
    """After the last guided call the negative prediction is the positive one: guidance adds the difference of both."""

    guided_calls: int
    calls: int = 0

    def replace(self, _unet: Any, _inputs: Any, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:  # noqa: ANN401
        """Hook after a call."""
        self.calls += 1
        if self.calls <= self.guided_calls:
            return None
        _, positive = outputs[0].chunk(2)
        return (torch.cat([positive, positive]), *outputs[1:])


@dataclass
class _Reuse:
    """Deep features of every call that is no multiple of the interval: those of the last one that was."""

    interval: int
    channels: int
    calls: int = 0
    features: torch.Tensor | None = None

    def replace(self, _layer: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:  # noqa: ANN401
        """Hook before the layer that reads them."""
        hidden, *others = inputs
        is_full = self.calls % self.interval == 0
        self.calls += 1
        if is_full or self.features is None:
            self.features = hidden[:, : self.channels]
            return None
        return (torch.cat([self.features, hidden[:, self.channels :]], dim=1), *others)
