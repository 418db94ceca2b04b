"""Request the image of a golden prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffusion_builder.serving.triton_client import ATTEMPTS, ErrorResponse, TritonClient, request_tensor
from diffusion_contract.python_models import (
    GENERATE,
    HEIGHT,
    IMAGE,
    INPAINT,
    INPUT_IMAGE,
    MASK,
    PROMPT,
    SEED,
    WIDTH,
)  # fmt: skip
from diffusion_contract.tensors import DType

if TYPE_CHECKING:
    from diffusion_builder.serving.triton_client import OutputTensor, RequestTensor
    from diffusion_contract.spec.rollout import GoldenPrompt
    from diffusion_contract.tensors import Tensor

Pixels: TypeAlias = NDArray[np.uint8]
TIMEOUT_SECONDS = 300.0
_EDGE = 64
_CHANNELS = 3


@dataclass(frozen=True)
class GoldenRequest:
    """A golden prompt for one ensemble; the size in pixels, or None for the server's own."""

    ensemble: str
    golden: GoldenPrompt
    height: int | None
    width: int | None

    def inputs(self) -> list[RequestTensor]:
        """Tensors of the request."""
        tensors = [_value(PROMPT, self.golden.prompt), _value(SEED, self.golden.seed)]
        tensors += [_value(side, value) for side, value in ((HEIGHT, self.height), (WIDTH, self.width)) if value]
        if not self.ensemble.startswith(GENERATE):
            tensors.append(request_tensor(INPUT_IMAGE.pixels.name, DType.UINT8, (1, _EDGE, _EDGE, _CHANNELS)))
        if self.ensemble.startswith(INPAINT):
            half = [255 * (index % _EDGE >= _EDGE // 2) for index in range(_EDGE**2)]
            tensors.append(request_tensor(MASK.pixels.name, DType.UINT8, (1, _EDGE, _EDGE), half))
        return tensors


def server(url: str) -> TritonClient:
    """A client of one revision's Service."""
    return TritonClient(url, TIMEOUT_SECONDS, ATTEMPTS)


def generate(client: TritonClient, request: GoldenRequest) -> Pixels | ErrorResponse:
    """The image [H, W, 3], or the server's error.

    Raises:
        UnavailableError: the server does not answer.
    """
    output = client.infer(request.ensemble, request.inputs(), IMAGE.name)
    if isinstance(output, ErrorResponse):
        return output
    try:
        return _pixels(output)
    except ValueError as error:
        return ErrorResponse(f"an answer that cannot be read: {error!r}")


def _value(tensor: Tensor, value: str | int) -> RequestTensor:
    return request_tensor(tensor.name, tensor.dtype, (1, 1), [value])


def _pixels(output: OutputTensor) -> Pixels:
    shape = output.shape
    if len(shape) != 4 or shape[0] != 1 or shape[3] != _CHANNELS or output.datatype != DType.UINT8:  # noqa: PLR2004
        raise ValueError(f"{output.datatype} {shape} is not an image")
    image: Pixels = np.frombuffer(output.content, np.uint8).reshape(shape)[0]
    return image
