"""A client of Triton's HTTP protocol that requests one output. Standard library only."""

from __future__ import annotations

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ATTEMPTS = 3
PAUSE_SECONDS = 2.0
_READY_SECONDS = 5.0
_MAX_BYTES = 256 << 20
_MAX_ERROR_BYTES = 2000
_HEADER = "Inference-Header-Content-Length"

# A tensor of a request in the protocol's JSON: name, datatype, shape, data.
RequestTensor = dict[str, Any]


@dataclass(frozen=True)
class OutputTensor:
    """An output of a model: its shape, its datatype in the protocol's words, and its elements as bytes."""

    shape: tuple[int, ...]
    datatype: str
    content: bytes


@dataclass(frozen=True)
class ErrorResponse:
    """The server answered with an error, or with what is not an output."""

    message: str


@dataclass(frozen=True)
class TritonClient:
    """A client of one server.

    Args:
        url: its HTTP address.
        timeout: seconds for each request.
        attempts: requests until an error counts: a pod that ends or starts just now is not a verdict.
        pause: waits between attempts, for tests.
    """

    url: str
    timeout: float
    attempts: int = 1
    pause: Callable[[float], None] = time.sleep

    def check_ready(self) -> None:
        """Require readiness.

        Raises:
            UnavailableError: the server is not ready, or does not answer.
        """
        response = self._with_retries("/v2/health/ready")
        if isinstance(response, ErrorResponse):
            raise UnavailableError(Reason.SERVER_UNREACHABLE, f"{self.url} is not ready: {response.message}")

    def has_model(self, name: str) -> bool:
        """Whether the server has a model.

        Raises:
            UnavailableError: it does not answer.
        """
        return not isinstance(self._with_retries(f"/v2/models/{name}/ready"), ErrorResponse)

    def infer(self, model: str, inputs: Sequence[RequestTensor], output: str) -> OutputTensor | ErrorResponse:
        """Request one output of a model.

        Raises:
            UnavailableError: the server does not answer.
        """
        outputs = [{"name": output, "parameters": {"binary_data": True}}]
        body = json.dumps({"inputs": list(inputs), "outputs": outputs}).encode()
        response = self._with_retries(f"/v2/models/{model}/infer", body)
        if isinstance(response, ErrorResponse):
            return response
        try:
            return _output(*response)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return ErrorResponse(f"an answer that cannot be read: {error!r}")

    def _with_retries(self, path: str, body: bytes | None = None) -> tuple[bytes, int] | ErrorResponse:
        problem: Exception | None = None
        response: tuple[bytes, int] | ErrorResponse | None = None
        for attempt in range(self.attempts):
            if attempt:
                self.pause(PAUSE_SECONDS)
            try:
                response = _send(f"{self.url.rstrip('/')}{path}", body, self.timeout if body else _READY_SECONDS)
            except (OSError, http.client.HTTPException) as error:
                problem = error
                continue
            if body is None or not isinstance(response, ErrorResponse):
                return response
        if response is None:
            raise UnavailableError(Reason.SERVER_UNREACHABLE, f"{self.url} does not answer: {problem}") from problem
        return response


def request_tensor(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any] | None = None) -> RequestTensor:
    """A tensor of a request; a test pattern where there is no data."""
    count = math.prod(shape)
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data or _test_pattern(datatype, count)}


def _test_pattern(datatype: str, count: int) -> list[float]:
    """Numbers that differ: bytes for images, small ones for everything else."""
    if datatype == "UINT8":
        return [index * 7 % 256 for index in range(count)]
    return [(index % 17 - 8) / 8 for index in range(count)]


def _send(url: str, body: bytes | None, timeout: float) -> tuple[bytes, int] | ErrorResponse:
    if not url.startswith(("http://", "https://")):
        raise BadInputError(Reason.INVALID_ARGUMENT, f"{url} is not an http address")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    # No proxy: the address is one inside the cluster.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            content = response.read(_MAX_BYTES + 1)
            return content, int(response.headers.get(_HEADER, len(content)))
    except urllib.error.HTTPError as error:
        text = _error_text(error.read(_MAX_ERROR_BYTES).decode(errors="replace"))
        return ErrorResponse(text or f"status {error.code} {error.reason}")


def _error_text(body: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.strip()


def _output(content: bytes, header: int) -> OutputTensor:
    fields: Mapping[str, Any] = json.loads(content[:header])["outputs"][0]
    return OutputTensor(tuple(int(side) for side in fields["shape"]), fields["datatype"], content[header:])
