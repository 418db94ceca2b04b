"""8_postprocessor: decoded samples → uint8 pixels and PNG files; only what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .pixels import to_pixels, to_png
from .triton_io import Array, RequestError, bytes_tensor, each, read

if TYPE_CHECKING:
    from collections.abc import Mapping


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return each(requests, _postprocess)


def _postprocess(request: Any) -> Mapping[str, Array]:  # noqa: ANN401 - Triton's objects are untyped
    decoded = read(request, "decoded")
    if decoded is None or not np.isfinite(decoded).all():
        raise RequestError("the model produced numbers that are not finite: try another seed or lower guidance_scale")
    wanted = set(request.requested_output_names())
    pixels = to_pixels(decoded)
    outputs: dict[str, Array] = {}
    if "image" in wanted:
        outputs["image"] = pixels
    if "encoded_image" in wanted:
        outputs["encoded_image"] = bytes_tensor([to_png(picture) for picture in pixels])
    return outputs
