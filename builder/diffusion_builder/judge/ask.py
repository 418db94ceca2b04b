"""Ask a server for one picture, as raw pixels over HTTP."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffusion_builder.errors import BadInputError, Reason, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from diffusion_builder.judge.spec import GoldenPrompt

Pixels: TypeAlias = NDArray[np.uint8]
TIMEOUT_SECONDS = 300.0
_ATTEMPTS = 3
_PAUSE_SECONDS = 2.0
_EDGE = 64
_MAX_BYTES = 256 << 20
_CHANNELS = 3
_HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Refusal:
    """The server answered, and not with a picture."""

    message: str


@dataclass(frozen=True)
class Question:
    """A golden prompt for one ensemble; the size in pixels, or None for the server's own."""

    ensemble: str
    golden: GoldenPrompt
    height: int | None
    width: int | None

    def body(self) -> Mapping[str, Any]:
        """The request in KServe's JSON; the picture comes back as bytes behind the JSON."""
        inputs = [_tensor("prompt", "BYTES", self.golden.prompt), _tensor("seed", "INT64", self.golden.seed)]
        inputs += [
            _tensor(name, "INT32", value)
            for name, value in (("height", self.height), ("width", self.width))
            if value is not None
        ]
        if not self.ensemble.startswith("generate"):
            inputs.append(_picture("input_image", [index * 7 % 256 for index in range(_EDGE * _EDGE * 3)], (3,)))
        if self.ensemble.startswith("inpaint"):
            inputs.append(_picture("mask", [255 * (index % _EDGE >= _EDGE // 2) for index in range(_EDGE**2)], ()))
        return {"inputs": inputs, "outputs": [{"name": "image", "parameters": {"binary_data": True}}]}


@dataclass(frozen=True)
class Server:
    """One revision's server.

    Args:
        url: HTTP address of its Service.
        pause: waits between attempts, for tests.
    """

    url: str
    pause: Callable[[float], None] = time.sleep

    def serves(self, ensemble: str) -> bool:
        """Whether it has this ensemble.

        Raises:
            UnavailableError: it does not answer.
        """
        return not isinstance(self._patiently(f"/v2/models/{ensemble}/ready", None), Refusal)

    def draw(self, question: Question) -> Pixels | Refusal:
        """A picture [H, W, 3], or what the server said instead.

        Raises:
            UnavailableError: it does not answer.
        """
        found = self._patiently(f"/v2/models/{question.ensemble}/infer", json.dumps(question.body()).encode())
        if isinstance(found, Refusal):
            return found
        try:
            return _pixels(*found)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return Refusal(f"an answer that cannot be read: {error!r}")

    def _patiently(self, path: str, body: bytes | None) -> tuple[bytes, int] | Refusal:
        """A pod that ends or starts just now is no judgement: what is not answered is asked again."""
        problem: Exception | None = None
        found: tuple[bytes, int] | Refusal | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.pause(_PAUSE_SECONDS)
            try:
                found = _post(f"{self.url.rstrip('/')}{path}", body)
            except (OSError, http.client.HTTPException) as error:
                problem = error
                continue
            if body is None or not isinstance(found, Refusal):
                return found
        if found is None:
            raise UnavailableError(Reason.PROBE_FAILED, f"{self.url} does not answer: {problem}") from problem
        return found


def _post(url: str, body: bytes | None) -> tuple[bytes, int] | Refusal:
    if not url.startswith(("http://", "https://")):
        raise BadInputError(Reason.INVALID_ARGUMENT, f"{url} is no http address")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    try:
        # No proxy: the address is one inside the cluster.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            content = response.read(_MAX_BYTES + 1)
            return content, int(response.headers.get(_HEADER, len(content)))
    except urllib.error.HTTPError as error:
        return Refusal(_said(error.read(2000).decode(errors="replace")) or str(error.reason))


def _said(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.strip()


def _pixels(content: bytes, header: int) -> Pixels:
    output = json.loads(content[:header])["outputs"][0]
    shape = tuple(int(side) for side in output["shape"])
    if len(shape) != 4 or shape[0] != 1 or shape[3] != _CHANNELS or output["datatype"] != "UINT8":  # noqa: PLR2004
        raise ValueError(f"{output['datatype']} {shape} is no picture")
    picture: Pixels = np.frombuffer(content[header:], np.uint8).reshape(shape)[0]
    return picture


def _tensor(name: str, datatype: str, value: str | int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1, 1], "data": [value]}


def _picture(name: str, data: list[int], channels: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": "UINT8", "shape": [1, _EDGE, _EDGE, *channels], "data": data}
