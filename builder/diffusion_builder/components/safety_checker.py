"""The safety checker of Stable Diffusion 1.x: a CLIP vision model that compares an image with fixed concepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from diffusion_builder.components import configs, parts, weights
from diffusion_builder.components.base import DTYPES, PIXELS, LoadedModule, TorchModel

if TYPE_CHECKING:
    from diffusion_builder.components.parts import LoadContext
    from diffusion_contract.enums import Precision

# What the model was trained with: OPENAI_CLIP_MEAN and OPENAI_CLIP_STD of transformers.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_WHITE = 255.0
# Free parameter of the cubic kernel that Pillow resizes with (Keys 1981, a = -1/2), and half its width.
_CUBIC = -0.5
_SUPPORT = 2.0
# diffusers rounds scores to three digits before it tests whether they are positive.
_POSITIVE = 0.0005
# Stricter when a concept of special care is in the image.
_ADJUSTMENT = 0.01


class SafetyCheckerModule(nn.Module):
    """decoded_image [B, 3, H, W] in [-1, 1] → safety_flag [B, 1] (0 or 1), safety_margin [B, 1] (positive: flagged)."""

    def __init__(self, model: TorchModel, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])

    def forward(self, decoded_image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As diffusers' StableDiffusionSafetyChecker decides about the image as bytes."""
        pixels = torch.round(torch.clamp(decoded_image * 0.5 + 0.5, 0.0, 1.0) * _WHITE)
        checker_input = torch.clamp(torch.round(_resized(pixels, self.size)), 0.0, _WHITE) / _WHITE
        normal = (checker_input - self.get_buffer("mean")) / self.get_buffer("std")
        pooled = self.model.vision_model(normal.to(self.model.dtype))[1]
        embeds = functional.normalize(self.model.visual_projection(pooled).float())
        special = self._scores(embeds, self.model.special_care_embeds, self.model.special_care_embeds_weights)
        care = (special > _POSITIVE).any(dim=1, keepdim=True).float()
        scores = self._scores(embeds, self.model.concept_embeds, self.model.concept_embeds_weights)
        margin = scores.amax(dim=1, keepdim=True) + _ADJUSTMENT * care - _POSITIVE
        return (margin > 0).float(), margin

    @staticmethod
    def _scores(embeds: torch.Tensor, concepts: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
        """By how much each concept's cosine exceeds its threshold, [B, K]."""
        return embeds @ functional.normalize(concepts.float()).t() - thresholds.float()


def load(material: LoadContext, precision: Precision) -> LoadedModule:
    """Read a StableDiffusionSafetyChecker.

    Raises:
        BadInputError: a wrong configuration or weights.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    folder = material.folders[parts.SAFETY_CHECKER]
    size = configs.read(folder, parts.SAFETY_CHECKER)["vision_config"]["image_size"]
    model = weights.transformers_model(StableDiffusionSafetyChecker, folder, DTYPES[precision])
    return LoadedModule(SafetyCheckerModule(model, size), {}, {"pixels_per_latent": 8}, PIXELS, precision)


def _resized(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """CLIPImageProcessor's resize of the shorter edge and crop of the middle: [B, 3, H, W] → [B, 3, size, size].

    Products with two matrices, since ONNX's own Resize knows no antialiasing in the opset that is used.
    """
    # Sums of ones are the sizes as numbers that a graph with open dimensions computes with.
    rows, columns = torch.ones_like(pixels[0, 0, :, 0]), torch.ones_like(pixels[0, 0, 0])
    height, width = rows.sum(), columns.sum()
    shorter = torch.minimum(height, width)
    down, across = _taps(rows, height, shorter, size), _taps(columns, width, shorter, size)
    # Pillow resizes rows first and keeps bytes in between.
    narrow = torch.clamp(torch.round(pixels @ across.t()), 0.0, _WHITE)
    return down @ narrow


def _taps(ones: torch.Tensor, edge: torch.Tensor, shorter: torch.Tensor, size: int) -> torch.Tensor:
    """How much each pixel of an edge counts for each pixel of the cropped result, [size, edge]."""
    longer = torch.floor(edge * size / shorter)
    scale = edge / longer
    positions = torch.arange(size, dtype=torch.float32) + torch.floor((longer - size) / 2)
    centers = (positions + 0.5) * scale
    places = torch.cumsum(ones, dim=0) - 0.5
    distance = torch.abs(places[None] - centers[:, None]) / torch.clamp(scale, min=1.0)
    taps = _cubic(distance)
    return taps / taps.sum(dim=1, keepdim=True)


def _cubic(x: torch.Tensor) -> torch.Tensor:
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
    return torch.where(x < 1, near, torch.where(x < _SUPPORT, far, torch.zeros_like(x)))
