"""8_postprocessor: decoded samples → finished pictures as uint8 pixels and files; only what was asked for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .finish import asked, finished
from .inputs import InputError
from .pixels import encode, to_pixels
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
    try:
        finishes = asked(partial(read, request), len(decoded))
        new = [Image.fromarray(pixels) for pixels in to_pixels(decoded)]
        done = [finished(picture, finish) for picture, finish in zip(new, finishes, strict=True)]
    except InputError as error:
        raise RequestError(str(error)) from error
    wanted = set(request.requested_output_names())
    outputs: dict[str, Array] = {}
    if "image" in wanted:
        outputs["image"] = np.stack([np.asarray(picture) for picture in done])
    if "encoded_image" in wanted:
        files = [encode(one, how.file_format, how.quality) for one, how in zip(done, finishes, strict=True)]
        outputs["encoded_image"] = bytes_tensor(files)
    return outputs
