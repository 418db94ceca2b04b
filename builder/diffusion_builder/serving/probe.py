"""Ask a running server for one real picture per ensemble. Standard library only; remembers nothing."""

from __future__ import annotations

import http.client
import json
import math
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import ProbeError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusion_builder.store import Artifact

_READY_SECONDS = 5.0
_CHANNELS = 3


def probe(url: str, repository: Artifact, timeout: float) -> Sequence[str]:
    """Check readiness, then each ensemble at the smallest size of the profile.

    Args:
        url: the server's HTTP address.
        repository: what it serves.
        timeout: seconds for each picture.

    Returns:
        The ensembles that have answered.

    Raises:
        ProbeError: not ready, an error, or an answer that is no picture.
    """
    base = url.rstrip("/")
    _request(f"{base}/v2/health/ready", None, _READY_SECONDS)
    extra = repository.manifest.extra
    height, width = extra["shapes"]["height"]["min"], extra["shapes"]["width"]["min"]
    for name in extra["ensembles"]:
        body = _request(f"{base}/v2/models/{name}/infer", _question(extra["requests"][name]), timeout)
        _check(name, body, (1, height, width, _CHANNELS))
    return tuple(extra["ensembles"])


def _question(tensors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    inputs = [{**tensor, "data": tensor.get("data") or _ramp(tensor)} for tensor in tensors]
    return {"inputs": inputs, "outputs": [{"name": "image"}]}


def _ramp(tensor: Mapping[str, Any]) -> list[float]:
    """Numbers that differ: bytes for pictures, small ones for everything else."""
    count = math.prod(tensor["shape"])
    if tensor["datatype"] == "UINT8":
        return [index * 7 % 256 for index in range(count)]
    return [(index % 17 - 8) / 8 for index in range(count)]


def _check(name: str, body: bytes, shape: tuple[int, ...]) -> None:
    try:
        output = json.loads(body)["outputs"][0]
        found, data = tuple(output["shape"]), output["data"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ProbeError(Reason.PROBE_FAILED, f"{name} gave an answer that cannot be read: {error!r}") from error
    if found != shape:
        raise ProbeError(Reason.PROBE_FAILED, f"{name} gave a picture of shape {found}, {shape} was asked for")
    if min(data) == max(data):
        raise ProbeError(Reason.PROBE_FAILED, f"{name} gave a picture of one single colour: the engines are broken")


def _request(url: str, body: Mapping[str, Any] | None, timeout: float) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ProbeError(Reason.PROBE_FAILED, f"{url} is no http address")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310 - checked above
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        text = error.read(1000).decode(errors="replace").strip()
        raise ProbeError(Reason.PROBE_FAILED, f"{url} answered {error.code}: {text or error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ProbeError(Reason.PROBE_FAILED, f"{url} does not answer: {error}") from error
