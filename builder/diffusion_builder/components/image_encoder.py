"""The CLIP vision model that IP-Adapter reads reference images with.

A sample may have several images; their embeddings follow one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_builder.components import configs, ip_adapter, parts, weights
from diffusion_builder.components.base import DTYPES, REFERENCES, LoadedModule, TorchModel

if TYPE_CHECKING:
    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Precision


class ImageEncoder(nn.Module):
    """reference_pixels [B, N, 3, S, S] → image_embeddings [B, 2, N, P]: negative ones, which are zero, and positive."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, reference_pixels: torch.Tensor) -> torch.Tensor:
        """Embed each image as a whole, as diffusers' encode_image does."""
        images = reference_pixels.flatten(0, 1).to(self.model.dtype)
        embeds = _per_sample(self.model(images).image_embeds.float(), reference_pixels)
        return torch.stack([torch.zeros_like(embeds), embeds], dim=1)


class PatchEncoder(nn.Module):
    """reference_pixels [B, N, 3, S, S] → image_embeddings [B, 2, N*T, D] of all patches, before the last layer.

    The negative embeddings are those of a black image, the same for all: computed once.
    """

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model: TorchModel = model.vision_model
        # What diffusers takes is hidden_states[-2], which does not go through the last layer.
        del self.model.encoder.layers[-1]
        size = model.config.image_size
        with torch.no_grad():
            self.register_buffer("negative", self._encode(torch.zeros(1, 3, size, size)))

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        embedded = self.model.embeddings(pixels.to(self.model.dtype))
        hidden: torch.Tensor = self.model.encoder(inputs_embeds=self.model.pre_layrnorm(embedded))[0]
        return hidden.float()

    def forward(self, reference_pixels: torch.Tensor) -> torch.Tensor:
        """Embed each image's patches, as diffusers' encode_image does with output_hidden_states."""
        images = self._encode(reference_pixels.flatten(0, 1))
        positive, negative = (
            _per_sample(tensor, reference_pixels) for tensor in (images, self.get_buffer("negative").expand_as(images))
        )
        return torch.stack([negative, positive], dim=1)


def _per_sample(embeds: torch.Tensor, reference_pixels: torch.Tensor) -> torch.Tensor:
    """[B*N, ..., D] → [B, N*..., D]."""
    return embeds.reshape(reference_pixels.shape[0], -1, embeds.shape[-1])


def load(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read a CLIPVisionModelWithProjection; the adapter decides which of its outputs is read.

    Raises:
        BadInputError: a wrong configuration or weights, or an adapter for another image encoder.
    """
    from transformers import CLIPVisionModelWithProjection

    folders = material.folders
    adapter = ip_adapter.read(folders[parts.IP_ADAPTER]) if parts.IP_ADAPTER in folders else None
    facts = ip_adapter.image_facts(folders, adapter)
    folder = folders[parts.IMAGE_ENCODER]
    facts["image_size"] = configs.read(folder, parts.IMAGE_ENCODER)["image_size"]
    model = weights.transformers_model(CLIPVisionModelWithProjection, folder, DTYPES[precision])
    patches = adapter is not None and adapter.reads_hidden_states
    return LoadedModule((PatchEncoder if patches else ImageEncoder)(model), facts, {}, REFERENCES, precision)
