"""Each component as data: where its weights are, how to load it, what is traced and with which example.

Importing this module imports torch. Another model family needs other entries of `COMPONENTS`, not another
flow. The libraries' model classes are dynamic, so they are `Any` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffusion_builder.contract import ENGINES, MAX_STEPS, Component, DType, Interface

if TYPE_CHECKING:
    from pathlib import Path

Facts = Mapping[str, int]
TORCH_TYPES: Mapping[DType, torch.dtype] = {
    DType.FP32: torch.float32,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
}


class TextEncoder(nn.Module):
    """input_ids [B, 2, L] (negative, positive) → text_embeddings [B, 2, L, D]."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - see the module
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Encode both prompts of every sample in one batch."""
        hidden = self.model(input_ids.flatten(0, 1))[0]
        return torch.unflatten(hidden, 0, (-1, 2))


class Denoiser(nn.Module):
    """One denoiser call with classifier-free guidance inside (arXiv 2207.12598, eq. 6 as diffusers writes it)."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - see the module
        super().__init__()
        self.model = model

    def forward(
        self, model_input: torch.Tensor, timestep: torch.Tensor, text_embeddings: torch.Tensor, guidance: torch.Tensor
    ) -> torch.Tensor:
        """[B, C, h, w], [B, 1], [B, 2, L, D], [B, 1] → [B, C, h, w]."""
        text = torch.cat([text_embeddings[:, 0], text_embeddings[:, 1]])
        output = self.model(model_input.repeat(2, 1, 1, 1), timestep[:, 0].repeat(2), text)[0]
        negative, positive = output.chunk(2)
        guided: torch.Tensor = negative + guidance[:, :, None, None] * (positive - negative)
        return guided


class SchedulerStep(nn.Module):
    """Look a step up in its sample's table and apply it; works for any number of state slots."""

    def forward(
        self,
        state: torch.Tensor,
        model_output: torch.Tensor,
        step_index: torch.Tensor,
        table: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """[B, S, C, h, w], [B, C, h, w], [B, 1], [B, 64, S+1, S+1], [B, 64] → what the next step reads."""
        row = step_index.to(torch.int64)
        following = torch.clamp(row + 1, max=MAX_STEPS - 1)
        matrix = torch.gather(table, 1, row[:, :, None, None].expand(-1, -1, table.shape[2], table.shape[3]))[:, 0]
        slots = torch.cat([state, model_output[:, None]], dim=1)
        mixed = torch.matmul(matrix, slots.flatten(2)).reshape(slots.shape)
        timestep = torch.gather(timesteps, 1, following)
        return mixed[:, :-1], mixed[:, -1], timestep, step_index + 1, mixed[:, 0]


class VaeDecoder(nn.Module):
    """latent [B, C, h, w] → decoded [B, 3, H, W] in about [-1, 1]; the scaling factor is inside."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - see the module
        super().__init__()
        self.model = model
        self.scale = 1.0 / float(model.config.scaling_factor)
        self.shift = float(getattr(model.config, "shift_factor", None) or 0.0)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode the whole batch."""
        image: torch.Tensor = self.model.decode(latent * self.scale + self.shift, return_dict=False)[0]
        return image


@dataclass(frozen=True)
class Sizes:
    """Sizes of an example input: batch, and latent height and width."""

    batch: int
    height: int
    width: int


@dataclass(frozen=True)
class Loaded:
    """A module in evaluation mode, and what it knows of `contract.Facts`.

    `example_facts` fills the dimensions that this component does not decide.
    """

    module: nn.Module
    facts: Facts
    example_facts: Facts


@dataclass(frozen=True)
class ComponentSpec:
    """A component as data.

    Args:
        part: folder of the checkpoint, or None when there are no weights.
        load: reads that folder.
        dynamic: named dimensions that stay open in the graph.
    """

    component: Component
    part: str | None
    load: Callable[[Path], Loaded]
    dynamic: frozenset[str]

    @property
    def interface(self) -> Interface:
        """Its tensors."""
        return ENGINES[self.component]


def _ready(model: Any) -> Any:  # noqa: ANN401 - see the module
    return model.eval().requires_grad_(requires_grad=False)


def _pretrained(model_class: Any, folder: Path) -> Any:  # noqa: ANN401 - see the module
    return model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)


def _text_encoder(folder: Path) -> Loaded:
    from transformers import CLIPTextModel

    # Eager attention has no data-dependent Python branches that a trace would freeze.
    model: Any = CLIPTextModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, attn_implementation="eager"
    )
    facts = {"text_length": model.config.max_position_embeddings, "text_width": model.config.hidden_size}
    return Loaded(TextEncoder(_ready(model)), facts, {"tokens": model.config.vocab_size})


def _denoiser(folder: Path) -> Loaded:
    from diffusers import UNet2DConditionModel

    model = _pretrained(UNet2DConditionModel, folder)
    facts = {"channels": model.config.in_channels, "text_width": model.config.cross_attention_dim}
    return Loaded(Denoiser(_ready(model)), facts, {"text_length": 7})


def _scheduler_step(_folder: Path) -> Loaded:
    return Loaded(SchedulerStep().eval(), {}, {"slots": 2, "channels": 3})


def _vae_decoder(folder: Path) -> Loaded:
    from diffusers import AutoencoderKL

    model = _pretrained(AutoencoderKL, folder)
    facts = {
        "channels": model.config.latent_channels,
        "pixels_per_latent": 2 ** (len(model.config.block_out_channels) - 1),
    }
    return Loaded(VaeDecoder(_ready(model)), facts, {})


_LATENT = frozenset({"latent_height", "latent_width"})

COMPONENTS: Mapping[Component, ComponentSpec] = {
    spec.component: spec
    for spec in (
        ComponentSpec(Component.TEXT_ENCODER, "text_encoder", _text_encoder, frozenset()),
        ComponentSpec(Component.DENOISER, "unet", _denoiser, _LATENT | {"text_length"}),
        ComponentSpec(Component.SCHEDULER_STEP, None, _scheduler_step, _LATENT | {"slots", "channels", "columns"}),
        ComponentSpec(Component.VAE_DECODER, "vae", _vae_decoder, _LATENT | {"height", "width"}),
    )
}


def example(spec: ComponentSpec, loaded: Loaded, sizes: Sizes, seed: int) -> tuple[torch.Tensor, ...]:
    """Make inputs for tracing or verification.

    Args:
        spec: the component.
        loaded: its module and facts.
        sizes: batch and latent size.
        seed: same seed, same inputs.

    Returns:
        One tensor per input of the interface, in order.
    """
    known = {**loaded.example_facts, **loaded.facts, "latent_height": sizes.height, "latent_width": sizes.width}
    known["columns"] = known.get("slots", 1) + 1
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for tensor in spec.interface.inputs:
        shape = (sizes.batch, *(known[dim] if isinstance(dim, str) else dim for dim in tensor.dims))
        if tensor.dtype is DType.FP32:
            tensors.append(torch.randn(shape, generator=generator))
        else:
            high = known.get("tokens", MAX_STEPS)
            values = torch.randint(0, high, shape, generator=generator)
            tensors.append(values.to(TORCH_TYPES[tensor.dtype]))
    return tuple(tensors)
