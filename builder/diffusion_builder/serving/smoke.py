"""Smoke test: one real image of every ensemble of a running server. Standard library only, no state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason, SmokeTestError, UnavailableError
from diffusion_builder.serving.triton_client import (
    ErrorResponse,
    OutputTensor,
    RequestTensor,
    TritonClient,
    request_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusion_builder.store import Artifact

_CHANNELS = 3


def smoke_test(url: str, repository: Artifact, timeout: float) -> Sequence[str]:
    """Check readiness, then each ensemble with the request that the repository has for it.

    Args:
        url: the server's HTTP address.
        repository: the repository that it serves.
        timeout: seconds for each image.

    Returns:
        Names of the ensembles; all have answered.

    Raises:
        SmokeTestError: not ready, an error, or an answer that is not an image.
    """
    extra, client = repository.manifest.extra, TritonClient(url, timeout)
    try:
        client.check_ready()
        for name in extra["ensembles"]:
            inputs = [request_tensor(**tensor) for tensor in extra["requests"][name]]
            _check(name, client.infer(name, inputs, "image"), _image_shape(inputs))
    except (BadInputError, UnavailableError) as error:
        raise SmokeTestError(Reason.SMOKE_TEST_FAILED, error.message) from error
    return tuple(extra["ensembles"])


def _image_shape(request: Sequence[RequestTensor]) -> tuple[int, ...]:
    """Shape of the answer to a request, which says height and width: [1, height, width, 3]."""
    sides = {tensor["name"]: tensor["data"][0] for tensor in request if tensor["name"] in {"height", "width"}}
    return 1, sides["height"], sides["width"], _CHANNELS


def _check(name: str, output: OutputTensor | ErrorResponse, shape: tuple[int, ...]) -> None:
    if isinstance(output, ErrorResponse):
        raise SmokeTestError(Reason.SMOKE_TEST_FAILED, f"{name} answered with an error: {output.message}")
    if output.shape != shape or len(output.content) != math.prod(shape):
        raise SmokeTestError(
            Reason.SMOKE_TEST_FAILED, f"{name} returned an image of shape {output.shape} instead of {shape}"
        )
    if min(output.content) == max(output.content):
        raise SmokeTestError(
            Reason.SMOKE_TEST_FAILED, f"{name} returned an image of a single color: the engines are broken"
        )
