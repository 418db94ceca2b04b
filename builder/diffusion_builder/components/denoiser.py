"""The UNet and all that happens in a denoiser call: guidance, its rescale, mask, residuals, reference image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffusion_builder.components import (
    attention,
    configs,
    deep_features,
    embedded_guidance,
    ip_adapter,
    lora,
    parts,
    refiner,
    residuals,
    shallow_layers,
    weights,
)
from diffusion_builder.components.base import (
    DTYPES,
    LATENT,
    LoadedModule,
    TorchModel,
    cfg_batch,
    cfg_duplicate,
    pooled_conditions,
)
from diffusion_builder.errors import BadInputError, Reason
from diffusion_contract import tensors
from diffusion_contract.enums import SHALLOW_DENOISERS, UNGUIDED_DENOISERS, Component, ModelFamily, Precision
from diffusion_contract.residuals import residual_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_builder.components.deep_features import DeepFeatures
    from diffusion_builder.components.ip_adapter import InstalledAdapter
    from diffusion_builder.components.parts import LoadContext

_Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Additions:
    """What is inside of a UNet besides its layers.

    Args:
        reference: the IP-Adapter.
        deep: what a full denoiser hands out and a shallow one is given.
    """

    reference: InstalledAdapter | None = None
    deep: DeepFeatures | None = None


class Denoiser(nn.Module):
    """One denoiser call with classifier-free guidance inside (arXiv 2207.12598, eq. 6 as diffusers writes it).

    A UNet that reads guidance as an embedding is called with the positive prompts alone.

    Guidance is in float32, whatever the UNet computes in: it multiplies a small difference, and the deviations of
    guidance rescale are sums over the whole latent, which exceed what half holds.

    Args:
        model: the UNet.
        names: of the inputs, in order.
        layout: of the residuals that ControlNets add.
        additions: what is inside of the UNet.
        is_guided: whether the UNet is called with the negative prompts, too.
    """

    def __init__(
        self,
        model: TorchModel,
        names: tuple[str, ...],
        layout: residuals.Layout,
        additions: Additions,
        *,
        is_guided: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.guidance_width: int = model.config.time_cond_proj_dim or 0
        self.has_negative = is_guided and not self.guidance_width
        self.names = names
        self.layout = layout
        self.reference = additions.reference
        self.deep = additions.deep

    def forward(self, *tensor_list: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Inputs and outputs as in `tensors.interface`, all [B, ...]."""
        inputs = dict(zip(self.names, tensor_list, strict=True))
        if self.deep is None:
            return self._predict(inputs)
        if tensors.DEEP_FEATURES.name not in inputs:
            return self._predict(inputs), *self.deep.recorded(has_negative=self.has_negative)
        sides = (tensors.NEGATIVE_DEEP_FEATURES, tensors.DEEP_FEATURES)
        features = [inputs[tensor.name] for tensor in sides if tensor.name in inputs]
        self.deep.features = torch.cat(features).to(self.model.dtype)
        return self._predict(inputs)

    def _predict(self, inputs: _Tensors) -> torch.Tensor:
        """Model output [B, C, h, w]."""
        output = self._call(inputs).float()
        if not self.has_negative:
            return output
        negative, positive = output.chunk(2)
        guided = negative + inputs[tensors.GUIDANCE.name][:, :, None, None] * (positive - negative)
        if tensors.GUIDANCE_RESCALE.name not in inputs:
            return guided
        return _rescale(guided, positive, inputs[tensors.GUIDANCE_RESCALE.name][:, :, None, None])

    def _call(self, inputs: _Tensors) -> torch.Tensor:
        dtype = self.model.dtype
        latent = inputs[tensors.MODEL_INPUT.name]
        if tensors.LATENT_MASK.name in inputs:
            latent = torch.cat([latent, inputs[tensors.LATENT_MASK.name], inputs[tensors.MASKED_LATENT.name]], dim=1)
        output: torch.Tensor = self.model(
            self._for_prompts(latent).to(dtype),
            self._for_prompts(inputs[tensors.TIMESTEP.name][:, 0]),
            self._text(inputs, dtype),
            return_dict=False,
            **self._embedded_guidance(inputs, dtype),
            **self._added_conditions(inputs, dtype),
            **self._residuals(inputs, dtype),
        )[0]
        return output

    def _text(self, inputs: _Tensors, dtype: torch.dtype) -> torch.Tensor | None:
        """Nothing where no layer reads it."""
        embeddings = inputs.get(tensors.TEXT_EMBEDDINGS.name)
        return None if embeddings is None else self._prompts(embeddings).to(dtype)

    def _for_prompts(self, tensor: torch.Tensor) -> torch.Tensor:
        """[B, ...], once for each prompt that the UNet is called with."""
        return cfg_duplicate(tensor) if self.has_negative else tensor

    def _prompts(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of [B, 2, ...] what the UNet is called with."""
        return cfg_batch(tensor) if self.has_negative else tensor[:, 1]

    def _embedded_guidance(self, inputs: _Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        if not self.guidance_width:
            return {}
        return {"timestep_cond": embedded_guidance.embed(inputs[tensors.GUIDANCE.name], self.guidance_width).to(dtype)}

    def _added_conditions(self, inputs: _Tensors, dtype: torch.dtype) -> dict[str, Any]:
        conditions = {**pooled_conditions(inputs, dtype, self._prompts), **self._reference(inputs, dtype)}
        return {"added_cond_kwargs": conditions} if conditions else {}

    def _reference(self, inputs: _Tensors, dtype: torch.dtype) -> dict[str, Any]:
        if self.reference is None or tensors.IMAGE_EMBEDDINGS.name not in inputs:
            return {}
        embeddings = self._prompts(inputs[tensors.IMAGE_EMBEDDINGS.name]).to(dtype)
        region = self._for_prompts(inputs[tensors.IP_ADAPTER_REGION.name])
        return self.reference.apply(embeddings, self._for_prompts(inputs[tensors.IP_ADAPTER_SCALE.name]), region)

    def _residuals(self, inputs: _Tensors, dtype: torch.dtype) -> dict[str, Any]:
        packed = [tensor for name, tensor in inputs.items() if name.startswith(tensors.RESIDUALS.name)]
        if not packed:
            return {}
        # Summed while they are one tensor: as many additions as there are ControlNets, in float32.
        height, width = inputs[tensors.MODEL_INPUT.name].shape[-2:]
        unpacked = residuals.unpack(sum(packed[1:], packed[0]).to(dtype), self.layout, height, width)
        if not self.has_negative:
            # Those of the positive prompts.
            unpacked = [residual.chunk(2)[1] for residual in unpacked]
        *down, middle = unpacked
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _rescale(guided: torch.Tensor, positive: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """Mix in the output with the deviation of the positive one (arXiv 2305.08891, eq. 15 and 16)."""
    positive_std, guided_std = (tensor.std(dim=(1, 2, 3), keepdim=True) for tensor in (positive, guided))
    return amount * (guided * (positive_std / guided_std)) + (1 - amount) * guided


def load(material: LoadContext, precision: Precision, component: Component = Component.DENOISER) -> LoadedModule:
    """Read a UNet2DConditionModel and put LoRAs and an IP-Adapter into it.

    Args:
        material: what it is made of.
        precision: of weights and arithmetic.
        component: variant of the denoiser.

    Raises:
        BadInputError: a wrong configuration or weights, or additions that do not belong to this UNet.
    """
    from diffusers import UNet2DConditionModel

    folder, options = material.folders[parts.UNET], material.options
    config = configs.read(folder, parts.UNET)
    configs.check_family(parts.UNET, config, options.family)
    if component in UNGUIDED_DENOISERS:
        shallow_layers.check_guidance(config)
    facts = refiner.refiner_facts(config) if component is Component.REFINER else _facts(config, options.family)
    adapter = None
    if options.ip_adapter:
        adapter = ip_adapter.read(material.folders[parts.IP_ADAPTER])
        facts |= {tensors.IP_ADAPTER_TRAIT: 1, **ip_adapter.image_facts(material.folders, adapter)}
    if options.guidance_rescale:
        _check_rescale(config)
        facts[tensors.GUIDANCE_RESCALE_TRAIT] = 1
    if options.long_prompts:
        facts["text_chunks"] = tensors.MAX_TEXT_CHUNKS
    if options.shallow_layers:
        shallow_layers.check(config, options.shallow_layers)
    layout = residuals.layout(config)
    if options.control_nets:
        facts |= {tensors.CONTROLNETS_TRAIT: options.control_nets, **residual_facts(layout)}
    model = weights.diffusers_model(UNet2DConditionModel, folder, DTYPES[precision])
    lora.merge(model, parts.UNET, material.loras, options.family)
    attention.rewrite(model, upcast=precision is not Precision.FLOAT32)
    reference = ip_adapter.install(model, adapter, facts["image_length"]) if adapter else None
    deep = None
    if options.shallow_layers:
        deep = deep_features.install(model, options.shallow_layers, is_shallow=component in SHALLOW_DENOISERS)
        facts |= deep.facts
    names = tuple(tensor.name for tensor in tensors.interface(component, facts).inputs)
    is_guided = component not in UNGUIDED_DENOISERS
    module = Denoiser(weights.freeze(model), names, layout, Additions(reference, deep), is_guided=is_guided)
    return LoadedModule(
        module, facts, {"text_length": 7}, LATENT | {"text_length", "residuals", "image_elements"}, precision
    )


def _check_rescale(config: Mapping[str, Any]) -> None:
    width = config.get("time_cond_proj_dim")
    if width is not None:
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"guidanceRescale compares outputs with and without guidance, but this UNet (time_cond_proj_dim {width}) "
            "reads guidance as an embedding: leave guidanceRescale out",
        )


def _facts(config: Mapping[str, Any], family: ModelFamily) -> dict[str, int]:
    """What the number of input channels says: the latent alone, or with a mask and the masked image's latent."""
    inputs, channels = config["in_channels"], config["out_channels"]
    facts = {"channels": channels, "text_width": configs.text_width(parts.UNET, config)}
    if family is ModelFamily.STABLE_DIFFUSION_XL:
        facts[tensors.POOLED_TRAIT] = configs.pooled_width(parts.UNET, config)
    if inputs == channels:
        return facts
    if inputs == 2 * channels + 1:
        return {**facts, tensors.INPAINTING_TRAIT: 1}
    raise BadInputError(
        Reason.UNSUPPORTED_COMPONENT,
        f"unet/config.json: in_channels {inputs} with out_channels {channels}; supported: {channels} (text to image) "
        f"and {2 * channels + 1} (inpainting)",
    )
