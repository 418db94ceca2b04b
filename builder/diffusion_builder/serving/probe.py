"""Ask a running server for one real image per ensemble. Standard library only; remembers nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, ProbeError, Reason, UnavailableError
from diffusion_builder.serving.triton_client import ErrorResponse, OutputTensor, TritonClient, request_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusion_builder.store import Artifact

_CHANNELS = 3


def probe(url: str, repository: Artifact, timeout: float) -> Sequence[str]:
    """Check readiness, then each ensemble at the smallest size of the profile.

    Args:
        url: the server's HTTP address.
        repository: served by it.
        timeout: seconds for each image.

    Returns:
        The ensembles that have answered.

    Raises:
        ProbeError: not ready, an error, or an answer that is not an image.
    """
    extra, client = repository.manifest.extra, TritonClient(url, timeout)
    shape = (1, extra["shapes"]["height"]["min"], extra["shapes"]["width"]["min"], _CHANNELS)
    try:
        client.check_ready()
        for name in extra["ensembles"]:
            inputs = [request_tensor(**tensor) for tensor in extra["requests"][name]]
            _check(name, client.infer(name, inputs, "image"), shape)
    except (BadInputError, UnavailableError) as error:
        raise ProbeError(Reason.PROBE_FAILED, error.message) from error
    return tuple(extra["ensembles"])


def _check(name: str, output: OutputTensor | ErrorResponse, shape: tuple[int, ...]) -> None:
    if isinstance(output, ErrorResponse):
        raise ProbeError(Reason.PROBE_FAILED, f"{name} answered with an error: {output.message}")
    if output.shape != shape or len(output.content) != math.prod(shape):
        raise ProbeError(Reason.PROBE_FAILED, f"{name} returned an image of shape {output.shape} instead of {shape}")
    if min(output.content) == max(output.content):
        raise ProbeError(Reason.PROBE_FAILED, f"{name} returned an image of a single color: the engines are broken")
