"""A ControlNet as an engine of its own, and what stands in for one: see docs/adr/0004."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffusion_builder.components import attention, configs, parts, residuals, weights
from diffusion_builder.components.base import (
    DTYPES,
    LATENT,
    PIXELS,
    LoadedModule,
    TorchModel,
    cfg_batch,
    cfg_duplicate,
    pooled_conditions,
)
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract import tensors
from diffusion_contract.enums import ModelFamily, Precision
from diffusion_contract.residuals import residual_facts
from diffusion_contract.tensors import MAX_TEXT_CHUNKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_builder.components.parts import LoadContext


class ControlNetModule(nn.Module):
    """All residuals of one ControlNet in one tensor, weighted per sample and per denoiser call."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        model_input: torch.Tensor,
        timestep: torch.Tensor,
        text_embeddings: torch.Tensor,
        control_image: torch.Tensor,
        control_scales: torch.Tensor,
        step_index: torch.Tensor,
        *pooled: torch.Tensor,
    ) -> torch.Tensor:
        """[B, C, h, w], [B, 1], [B, 2, L, D], [B, 3, H, W], [B, 64], [B, 1], pooled and sizes → [B, 2, R]."""
        dtype = self.model.dtype
        names = (tensors.POOLED_EMBEDDINGS.name, tensors.TIME_IDS.name)[: len(pooled)]
        conditions = pooled_conditions(dict(zip(names, pooled, strict=True)), dtype)
        down, middle = self.model(
            cfg_duplicate(model_input).to(dtype),
            cfg_duplicate(timestep[:, 0]),
            cfg_batch(text_embeddings).to(dtype),
            cfg_duplicate(control_image).to(dtype),
            return_dict=False,
            **({"added_cond_kwargs": conditions} if conditions else {}),
        )
        packed = residuals.pack([*down, middle]).float()
        return packed * torch.gather(control_scales, 1, step_index.to(torch.int64))[:, :, None]


class ZeroResiduals(nn.Module):
    """model_input [B, C, h, w] → residuals [B, 2, R] of zeros.

    Requests without a ControlNet then share the denoiser's batches with those that have one.
    """

    def __init__(self, layout: residuals.Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, model_input: torch.Tensor) -> torch.Tensor:
        """Zeros of the length that a latent of this size needs."""
        length = residuals.length(self.layout, model_input.shape[-2], model_input.shape[-1])
        return torch.zeros(model_input.shape[0], 2, length)


def load(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read a ControlNetModel.

    Raises:
        BadInputError: a wrong configuration or weights, or it is not for this UNet.
    """
    from diffusers import ControlNetModel

    folder = material.folders[parts.CONTROLNET]
    config = configs.read(folder, parts.CONTROLNET)
    configs.check_family(parts.CONTROLNET, config, material.options.family)
    check(config, configs.read(material.folders[parts.UNET], parts.UNET))
    model = weights.diffusers_model(ControlNetModel, folder, DTYPES[precision])
    attention.rewrite(model, upcast=precision is not Precision.FLOAT32)
    facts = {
        "channels": config["in_channels"],
        "text_width": configs.text_width(parts.CONTROLNET, config),
        "pixels_per_latent": 2 ** (len(config["conditioning_embedding_out_channels"]) - 1),
        **residual_facts(residuals.layout(config)),
    }
    if material.options.family is ModelFamily.STABLE_DIFFUSION_XL:
        facts[tensors.POOLED_TRAIT] = configs.pooled_width(parts.CONTROLNET, config)
    if material.options.long_prompts:
        facts["text_chunks"] = MAX_TEXT_CHUNKS
    return LoadedModule(
        ControlNetModule(model), facts, {"text_length": 7}, LATENT | PIXELS | {"text_length", "residuals"}, precision
    )


def load_zero_residuals(material: LoadContext, _precision: Precision) -> LoadedModule:
    """Read the UNet's configuration; there are no weights, and zeros are the same in every precision."""
    config = configs.read(material.folders[parts.UNET], parts.UNET)
    layout = residuals.layout(config)
    facts = {"channels": config["out_channels"], **residual_facts(layout)}
    return LoadedModule(ZeroResiduals(layout).eval(), facts, {}, LATENT | {"residuals"})


def check(control: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Compare what a ControlNet and a UNet must agree in.

    Raises:
        BadInputError: naming the entry and both values.
    """
    widths = configs.text_width(parts.CONTROLNET, control), configs.text_width(parts.UNET, unet)
    if widths[0] != widths[1]:
        raise _mismatch("cross_attention_dim", *widths)
    if residuals.layout(control) != residuals.layout(unet):
        name = (
            "block_out_channels" if control["block_out_channels"] != unet["block_out_channels"] else "layers_per_block"
        )
        raise _mismatch(name, control.get(name), unet.get(name))
    if control["in_channels"] != unet["out_channels"]:
        raise _mismatch("in_channels", control["in_channels"], unet["out_channels"])
    if control.get("global_pool_conditions"):
        raise BadInputError(Reason.UNSUPPORTED_COMPONENT, "a ControlNet with global_pool_conditions is not supported")


def _mismatch(entry: str, control_value: object, unet_value: object) -> BadInputError:
    return BadInputError(
        Reason.COMPONENT_MISMATCH,
        f"the ControlNet is for another base model: its {entry} is {control_value}, the UNet has {unet_value}",
    )
