"""What the preprocessor computes: from pictures and masks of a request to what the engines read.

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

from . import masks
from .inputs import InputError, Number, Read, batch_of
from .pictures import GRAY, RGB, picture_groups, pictures
from .sizes import Side, chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Floats = NDArray[np.float32]
# Pictures that one sample may refer to; the image encoder's profile has room for as many.
MAX_REFERENCES = 4
# A thinner reference picture would be blown up to gigabytes before its middle is cut out.
_MAX_ASPECT = 20
_FEATHER = Number("mask_feather", 0.0, 0.0, 256.0, "radius in pixels, 0 leaves the mask as it is")
_CONTROL = "control_pixels_"


@dataclass(frozen=True)
class Settings:
    """The contents of `preprocessor.json`.

    Args:
        height: what is served.
        width: what is served.
        pixels_per_latent: edge of the square of pixels that one latent element stands for.
        image_size: edge of the image encoder's pictures; 0 without IP-Adapter.
        mean: the image encoder's, per channel.
        std: the image encoder's, per channel.
        control_nets: names of the ControlNets.
    """

    height: Side
    width: Side
    pixels_per_latent: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    control_nets: tuple[str, ...]

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read the file that the builder has written."""
        body = json.loads(text)
        return cls(
            Side(**body["height"]), Side(**body["width"]), body["pixelsPerLatent"], body["imageSize"],
            tuple(body["imageMean"]), tuple(body["imageStd"]), tuple(body["controlNets"]),
        )  # fmt: skip


def preprocess(settings: Settings, read: Read, wanted: Iterable[str]) -> Mapping[str, NDArray[Any]]:
    """Compute the wanted outputs of one request, batch first.

    Args:
        settings: of the checkpoint.
        read: the request's inputs.
        wanted: pixels [3, H, W] and masked_pixels [3, H, W] in [-1, 1], latent_mask [1, h, w], reference_pixels
            [n, 3, s, s], ip_adapter_region [1, h, w], control_pixels_<name> [3, H, W] in [0, 1]; accepted_ids, which
            are the input_ids, and accepted_input, which is the model_input.

    Raises:
        InputError: an input is missing or cannot be used.
    """
    work = _Work(settings, read)
    work.check_blend_mask()
    makers: dict[str, Callable[[], NDArray[Any]]] = {
        "accepted_ids": lambda: np.asarray(read("input_ids")),
        "accepted_input": lambda: np.asarray(read("model_input")),
        "pixels": lambda: work.pixels,
        "masked_pixels": work.masked_pixels,
        "latent_mask": work.latent_mask,
        "reference_pixels": work.reference_pixels,
        "ip_adapter_region": work.region,
    }
    for name in settings.control_nets:
        makers[_CONTROL + name] = lambda name=name: work.control_pixels(name)  # type: ignore[misc]
    return {name: makers[name]() for name in sorted(wanted)}


class _Work:
    """One request; what several outputs need is computed once."""

    def __init__(self, settings: Settings, read: Read) -> None:
        self._settings = settings
        self._read = read
        self._batch = batch_of(read)

    def check_blend_mask(self) -> None:
        """Only the postprocessor uses it: too late to refuse it."""
        pictures(self._read, "blend_mask", self._batch, GRAY)

    @cached_property
    def _originals(self) -> list[Image.Image] | None:
        return pictures(self._read, "input_image", self._batch, RGB)

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Height and width."""
        originals = self._originals
        heights = [picture.height for picture in originals] if originals else None
        widths = [picture.width for picture in originals] if originals else None
        return (
            chosen("height", self._read, self._settings.height, heights, self._batch),
            chosen("width", self._read, self._settings.width, widths, self._batch),
        )

    @cached_property
    def pixels(self) -> Floats:
        if self._originals is None:
            raise InputError("input_image is missing: send input_image (UINT8 [B, H, W, 3]) or input_image_file")
        return _stack(self._originals, self._size) * np.float32(2.0) - np.float32(1.0)

    @cached_property
    def _mask(self) -> Floats:
        given = pictures(self._read, "mask", self._batch, GRAY)
        if given is None:
            raise InputError("mask is missing: send mask (UINT8 [B, H, W], 255 is repainted) or mask_file")
        feathers = _FEATHER.read(self._read, self._batch)
        soft = [masks.resized(mask, *self._size, radius) for mask, radius in zip(given, feathers, strict=True)]
        return masks.unit(soft)

    def masked_pixels(self) -> Floats:
        return self.pixels * (self._mask < np.float32(0.5))

    def latent_mask(self) -> Floats:
        return masks.at_latent(self._mask, self._settings.pixels_per_latent)

    def region(self) -> Floats:
        height, width = self._size
        given = pictures(self._read, "ip_adapter_mask", self._batch, GRAY)
        factor = self._settings.pixels_per_latent
        if given is None:
            return np.ones((self._batch, 1, height // factor, width // factor), np.float32)
        soft = masks.unit([masks.resized(mask, height, width) for mask in given])
        return np.ascontiguousarray(masks.region_at_latent(soft, factor))

    def reference_pixels(self) -> Floats:
        groups = picture_groups(self._read, "ip_adapter_image", self._batch, MAX_REFERENCES)
        if groups is None:
            raise InputError(
                "ip_adapter_image is missing: send ip_adapter_image (UINT8 [B, n, H, W, 3]) or ip_adapter_image_file"
            )
        return np.stack([np.stack([self._reference(picture) for picture in group]) for group in groups])

    def _reference(self, picture: Image.Image) -> Floats:
        """As CLIPImageProcessor: shortest edge by bicubic, centre, scaled to 0..1, normalised."""
        edge, settings = self._settings.image_size, self._settings
        short, long = sorted(picture.size)
        if long > short * _MAX_ASPECT:
            raise InputError(
                f"ip_adapter_image is {picture.width} x {picture.height} pixels: send one whose longer side is at most "
                f"{_MAX_ASPECT} times the shorter one"
            )
        other = int(edge * long / short)
        size = (edge, other) if picture.width <= picture.height else (other, edge)
        pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
        top, left = (size[1] - edge) // 2, (size[0] - edge) // 2
        cut = pixels[top : top + edge, left : left + edge].astype(np.float64) * (1 / 255)
        scaled = (cut.astype(np.float32) - np.array(settings.mean, np.float32)) / np.array(settings.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def control_pixels(self, name: str) -> Floats:
        given = pictures(self._read, f"control_image_{name}", self._batch, RGB)
        if given is None:
            raise InputError(
                f"control_image_{name} is missing: send control_image_{name} (UINT8 [B, H, W, 3]) or "
                f"control_image_{name}_file"
            )
        return _stack(given, self._size)


def _stack(originals: Sequence[Image.Image], size: tuple[int, int]) -> Floats:
    """Pictures [B, 3, H, W] from 0 to 1, resized by Lanczos as diffusers' VaeImageProcessor does."""
    height, width = size
    fitted = [picture.resize((width, height), Image.Resampling.LANCZOS) for picture in originals]
    unit = np.stack([np.asarray(picture, np.float32) for picture in fitted]) / np.float32(255.0)
    return np.ascontiguousarray(unit.transpose(0, 3, 1, 2))
