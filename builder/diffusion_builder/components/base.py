"""What every component module gives: a loaded module with the facts that its interface depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from diffusion_contract.enums import Precision
from diffusion_contract.tensors import POOLED_EMBEDDINGS, TIME_IDS, interface

if TYPE_CHECKING:
    from torch import nn

    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Component
    from diffusion_contract.tensors import Interface

Facts = Mapping[str, int]
# The libraries' model classes are dynamic and have no types.
TorchModel: TypeAlias = Any
DTYPES: Mapping[Precision, torch.dtype] = {
    Precision.FLOAT32: torch.float32,
    Precision.FLOAT16: torch.float16,
    Precision.BFLOAT16: torch.bfloat16,
}


@dataclass(frozen=True)
class LoadedModule:
    """A module in evaluation mode, and what it knows of sizes.

    Its inputs and outputs have the dtypes of the contract, whatever its weights have. It must give the same, but for
    rounding, after `module.float()`: that is what its graph is compared with.

    Args:
        module: what is traced.
        facts: recorded in the manifest.
        example_facts: values for dimensions that this component does not decide.
        dynamic: named dimensions that stay open in the graph.
        precision: what the arithmetic is in; float32 where a model overflows in what was requested.
    """

    module: nn.Module
    facts: Facts
    example_facts: Facts = field(default_factory=dict)
    dynamic: frozenset[str] = frozenset()
    precision: Precision = Precision.FLOAT32


@dataclass(frozen=True)
class ComponentSpec:
    """A component as data.

    Args:
        component: which one.
        load: reads its weights, in this precision.
    """

    component: Component
    load: Callable[[LoadContext, Precision], LoadedModule]

    def interface(self, facts: Facts) -> Interface:
        """Its tensors, for a graph with these facts."""
        return interface(self.component, facts)


LATENT = frozenset({"latent_height", "latent_width"})
PIXELS = frozenset({"height", "width"})
REFERENCES = frozenset({"references", "image_elements"})


def cfg_batch(tensor: torch.Tensor) -> torch.Tensor:
    """[B, 2, ...] (negative, positive) → [2B, ...]: all negative ones first."""
    return torch.cat([tensor[:, 0], tensor[:, 1]])


def cfg_duplicate(tensor: torch.Tensor) -> torch.Tensor:
    """[B, ...] → [2B, ...], in the order of `cfg_batch`."""
    return torch.cat([tensor, tensor])


def pooled_conditions(
    inputs: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    prompts: Callable[[torch.Tensor], torch.Tensor] = cfg_batch,
) -> dict[str, torch.Tensor]:
    """What a UNet or ControlNet of Stable Diffusion XL reads besides tokens; nothing for others.

    Args:
        inputs: by their names in the contract.
        dtype: of the model; sizes stay in float32, in which their sines are computed.
        prompts: [B, 2, ...] to what the model is called with.
    """
    if POOLED_EMBEDDINGS.name not in inputs:
        return {}
    return {
        "text_embeds": prompts(inputs[POOLED_EMBEDDINGS.name]).to(dtype),
        "time_ids": prompts(inputs[TIME_IDS.name]),
    }
