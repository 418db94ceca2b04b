"""What the preprocessor computes: from images and masks of a request to what the engines read.

Equal to diffusers' VaeImageProcessor, `prepare_mask_latents` and IPAdapterMaskProcessor, and to transformers'
CLIPImageProcessor. Pure numpy and Pillow, so that it is tested without Triton.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import masks, python_models, tensors
from .errors import InvalidRequest
from .images import GRAY, RGB, read_image_groups, read_images
from .request_inputs import NumberInput, RequestInputs, SupportedSizes
from .tensors import MAX_REFERENCE_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .request_inputs import ReadTensor

Floats = NDArray[np.float32]
# A thinner reference image would be blown up to gigabytes before its middle is cut out.
_MAX_ASPECT = 20
_FEATHER = NumberInput(python_models.MASK_FEATHER, 0.0, 0.0, 256.0, hint="radius in pixels, 0 leaves the mask as it is")


@dataclass(frozen=True)
class PreprocessorConfig:
    """The contents of `preprocessor.json`.

    Args:
        sizes: of images.
        pixels_per_latent: edge of the square of pixels that one latent element stands for.
        image_size: edge of the image encoder's images; 0 without IP-Adapter.
        mean: the image encoder's, per channel.
        std: the image encoder's, per channel.
        control_nets: names of the ControlNets.
    """

    sizes: SupportedSizes
    pixels_per_latent: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    control_nets: tuple[str, ...]

    @classmethod
    def from_json(cls, text: str) -> PreprocessorConfig:
        """Read the file that the builder has written."""
        body = json.loads(text)
        return cls(
            SupportedSizes.from_json(body), body["pixelsPerLatent"], body["imageSize"],
            tuple(body["imageMean"]), tuple(body["imageStd"]), tuple(body["controlNets"]),
        )  # fmt: skip


def preprocess(
    config: PreprocessorConfig, read: ReadTensor, output_names: Collection[str]
) -> Mapping[str, NDArray[Any]]:
    """Compute the requested outputs of one request, batch first.

    Args:
        config: of the checkpoint.
        read: the request's inputs.
        output_names: pixels [3, H, W] and masked_pixels [3, H, W] in [-1, 1], latent_mask [1, h, w], reference_pixels
            [n, 3, s, s], ip_adapter_region [1, h, w], control_pixels_<name> [3, H, W] in [0, 1]; validated_input_ids,
            which are the input_ids, and validated_model_input, which is the model_input.

    Raises:
        InvalidRequest: an input is missing or not supported.
    """
    work = _Preprocessing(config, RequestInputs.of(read))
    work.check_blend_mask()
    outputs: dict[str, Callable[[], NDArray[Any]]] = {
        python_models.VALIDATED_INPUT_IDS.name: lambda: np.asarray(read(tensors.INPUT_IDS.name)),
        python_models.VALIDATED_MODEL_INPUT.name: lambda: np.asarray(read(tensors.MODEL_INPUT.name)),
        tensors.PIXELS.name: lambda: work.pixels,
        python_models.MASKED_PIXELS.name: work.masked_pixels,
        tensors.LATENT_MASK.name: work.latent_mask,
        tensors.REFERENCE_PIXELS.name: work.reference_pixels,
        tensors.IP_ADAPTER_REGION.name: work.region,
    }
    for net in config.control_nets:
        outputs[python_models.control_pixels(net).name] = lambda net=net: work.control_pixels(net)  # type: ignore[misc]
    return {name: outputs[name]() for name in sorted(output_names)}


class _Preprocessing:
    """One request; what several outputs need is computed once."""

    def __init__(self, config: PreprocessorConfig, inputs: RequestInputs) -> None:
        self._config = config
        self._inputs = inputs

    def check_blend_mask(self) -> None:
        """Only the postprocessor uses it: too late to reject it."""
        read_images(self._inputs, python_models.BLEND_MASK, GRAY)

    @cached_property
    def _originals(self) -> list[Image.Image] | None:
        return read_images(self._inputs, python_models.INPUT_IMAGE, RGB)

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Height and width."""
        originals = self._originals
        heights = [image.height for image in originals] if originals else None
        widths = [image.width for image in originals] if originals else None
        return self._config.sizes.of(self._inputs, heights, widths)

    @cached_property
    def pixels(self) -> Floats:
        if self._originals is None:
            raise InvalidRequest("input_image is missing: send input_image (UINT8 [B, H, W, 3]) or input_image_file")
        return _stack(self._originals, self._size) * np.float32(2.0) - np.float32(1.0)

    @cached_property
    def _mask(self) -> Floats:
        images = read_images(self._inputs, python_models.MASK, GRAY)
        if images is None:
            raise InvalidRequest("mask is missing: send mask (UINT8 [B, H, W], 255 is repainted) or mask_file")
        feathers = self._inputs.numbers(_FEATHER)
        soft = [masks.resize_mask(mask, *self._size, radius) for mask, radius in zip(images, feathers, strict=True)]
        return masks.unit(soft)

    def masked_pixels(self) -> Floats:
        return self.pixels * (self._mask < np.float32(0.5))

    def latent_mask(self) -> Floats:
        return masks.at_latent(self._mask, self._config.pixels_per_latent)

    def region(self) -> Floats:
        height, width = self._size
        images = read_images(self._inputs, python_models.IP_ADAPTER_MASK, GRAY)
        factor = self._config.pixels_per_latent
        if images is None:
            return np.ones((self._inputs.batch, 1, height // factor, width // factor), np.float32)
        soft = masks.unit([masks.resize_mask(mask, height, width) for mask in images])
        return np.ascontiguousarray(masks.region_at_latent(soft, factor))

    def reference_pixels(self) -> Floats:
        groups = read_image_groups(self._inputs, python_models.IP_ADAPTER_IMAGE, MAX_REFERENCE_IMAGES)
        if groups is None:
            raise InvalidRequest(
                "ip_adapter_image is missing: send ip_adapter_image (UINT8 [B, n, H, W, 3]) or ip_adapter_image_file"
            )
        return np.stack([np.stack([self._reference(image) for image in group]) for group in groups])

    def _reference(self, image: Image.Image) -> Floats:
        """As CLIPImageProcessor: shortest edge by bicubic, center, scaled to 0..1, normalized."""
        edge, config = self._config.image_size, self._config
        short, long = sorted(image.size)
        if long > short * _MAX_ASPECT:
            raise InvalidRequest(
                f"ip_adapter_image is {image.width} x {image.height} pixels: send one whose longer side is at most "
                f"{_MAX_ASPECT} times the shorter one"
            )
        other = int(edge * long / short)
        size = (edge, other) if image.width <= image.height else (other, edge)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        top, left_edge = (size[1] - edge) // 2, (size[0] - edge) // 2
        cut = pixels[top : top + edge, left_edge : left_edge + edge].astype(np.float64) * (1 / 255)
        scaled = (cut.astype(np.float32) - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def control_pixels(self, net: str) -> Floats:
        image_input = python_models.control_image(net)
        images = read_images(self._inputs, image_input, RGB)
        if images is None:
            name = image_input.pixels.name
            raise InvalidRequest(f"{name} is missing: send {name} (UINT8 [B, H, W, 3]) or {image_input.file.name}")
        return _stack(images, self._size)


def _stack(images: Sequence[Image.Image], size: tuple[int, int]) -> Floats:
    """Images [B, 3, H, W] from 0 to 1, resized by Lanczos as diffusers' VaeImageProcessor does."""
    height, width = size
    resized = [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]
    unit = np.stack([np.asarray(image, np.float32) for image in resized]) / np.float32(255.0)
    return np.ascontiguousarray(unit.transpose(0, 3, 1, 2))
