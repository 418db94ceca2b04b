"""8_postprocessor: decoded samples → postprocessed images as pixels, files and text; only the requested outputs."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .errors import InvalidRequest
from .postprocess import are_flagged, encode, postprocess, read_options, to_pixels
from .python_models import ENCODED_IMAGE, ENCODED_IMAGE_BASE64, FLAGGED, IMAGE
from .request_inputs import RequestInputs
from .tensors import DECODED_IMAGE
from .triton_io import Array, bytes_tensor, respond_each

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .request_inputs import ReadTensor


class TritonPythonModel:
    """Entry point of Triton's Python backend."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests."""
        return respond_each(requests, compute_outputs)


def compute_outputs(read: ReadTensor, output_names: Collection[str]) -> Mapping[str, Array]:
    """Postprocess the samples of one request.

    Raises:
        InvalidRequest: an input is not supported, or the samples are not finite.
    """
    decoded = read(DECODED_IMAGE.name)
    if decoded is None or not np.isfinite(decoded).all():
        raise InvalidRequest("the model produced numbers that are not finite: try another seed or lower guidance_scale")
    inputs = RequestInputs(read, len(decoded))
    if set(output_names) == {FLAGGED.name}:
        return {FLAGGED.name: _flags(inputs)}
    options = read_options(inputs)
    images = [Image.fromarray(pixels) for pixels in to_pixels(decoded)]
    images = [postprocess(image, option) for image, option in zip(images, options, strict=True)]
    outputs: dict[str, Array] = {}
    if IMAGE.name in output_names:
        outputs[IMAGE.name] = np.stack([np.asarray(image) for image in images])
    if ENCODED_IMAGE.name in output_names or ENCODED_IMAGE_BASE64.name in output_names:
        files = [encode(image, one.file_format, one.quality) for image, one in zip(images, options, strict=True)]
        outputs[ENCODED_IMAGE.name] = bytes_tensor(files)
        outputs[ENCODED_IMAGE_BASE64.name] = bytes_tensor([base64.b64encode(file) for file in files])
    if FLAGGED.name in output_names:
        outputs[FLAGGED.name] = _flags(inputs)
    return {name: outputs[name] for name in output_names}


def _flags(inputs: RequestInputs) -> Array:
    return np.array(are_flagged(inputs)).reshape(-1, 1)
