"""Requests to a pipeline the way users send them, and images compared."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray

from diffusion_builder.compare.metrics import psnr

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Counts", "ImageRequest", "Pixels", "answer", "counts", "inputs", "psnr", "send", "send_all", "tensor"]
Pixels = NDArray[np.uint8]
_SECONDS = 300.0
_TYPES = {"seed": "INT64", "guidance_scale": "FP32", "height": "INT32", "width": "INT32"}
_ARRAYS: dict[str, type[np.generic]] = {"INT64": np.int64, "FP32": np.float32, "INT32": np.int32}


@dataclass(frozen=True)
class ImageRequest:
    """A request: one value per sample, or None for the server's default."""

    steps: int
    prompt: Sequence[str]
    negative_prompt: Sequence[str] | None = None
    seed: Sequence[int] | None = None
    guidance_scale: Sequence[float] | None = None
    height: Sequence[int] | None = None
    width: Sequence[int] | None = None

    @property
    def model(self) -> str:
        """The ensemble that answers it."""
        return f"generate_{self.steps}_pipeline"


def inputs(request: ImageRequest) -> list[Any]:
    """The request's tensors; what is None is not sent."""
    tensors = [_text("prompt", request.prompt)]
    if request.negative_prompt is not None:
        tensors.append(_text("negative_prompt", request.negative_prompt))
    for name, datatype in _TYPES.items():
        values = getattr(request, name)
        if values is not None:
            tensors.append(tensor(name, datatype, np.array(values, _ARRAYS[datatype]).reshape(-1, 1)))
    return tensors


def _text(name: str, texts: Sequence[str]) -> Any:  # noqa: ANN401 - tritonclient has no types
    return tensor(name, "BYTES", np.array([text.encode() for text in texts], object).reshape(-1, 1))


def tensor(name: str, datatype: str, array: NDArray[Any]) -> Any:  # noqa: ANN401 - tritonclient has no types
    """One tensor of a request."""
    item = triton.InferInput(name, list(array.shape), datatype)
    item.set_data_from_numpy(array)
    return item


def send(http: str, request: ImageRequest) -> Pixels:
    """Request images [B, H, W, 3].

    Raises:
        tritonclient.utils.InferenceServerException: the server answers with an error.
    """
    return np.asarray(answer(http, request.model, inputs(request), ["image"]).as_numpy("image"), np.uint8)


def answer(http: str, model: str, tensors: Sequence[Any], outputs: Sequence[str] = ()) -> Any:  # noqa: ANN401 - tritonclient has no types
    """Send tensors and ask for these outputs, or name none; a client of its own, so that threads do not share one."""
    address = http.removeprefix("http://")
    with closing(triton.InferenceServerClient(address, network_timeout=_SECONDS)) as client:
        requested_outputs = [triton.InferRequestedOutput(name) for name in outputs] or None
        return client.infer(model, list(tensors), outputs=requested_outputs)


def send_all(http: str, requests: Sequence[ImageRequest]) -> list[Pixels]:
    """Send requests at the same time; images in the order of the requests."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: send(http, request), requests))


@dataclass(frozen=True)
class Counts:
    """What Triton has counted for a model: samples, and calls that they were joined into."""

    samples: int
    calls: int

    def since(self, before: Counts) -> Counts:
        """What has been counted after `before`."""
        return Counts(self.samples - before.samples, self.calls - before.calls)

    @property
    def mean_batch(self) -> float:
        """Samples per call; 1 without any call."""
        return self.samples / self.calls if self.calls else 1.0


def counts(http: str, model: str) -> Counts:
    """Read a model's statistics."""
    address = f"{http}/v2/models/{model}/stats"
    with urllib.request.urlopen(address, timeout=_SECONDS) as response:  # noqa: S310 - our own server
        stats = json.load(response)["model_stats"][0]
    return Counts(stats["inference_count"], stats["execution_count"])
