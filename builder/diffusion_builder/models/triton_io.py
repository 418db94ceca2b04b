"""Shared by all Python models: read a request's tensors, answer each request on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Array = NDArray[Any]


class RequestError(Exception):
    """The request cannot be answered; the message tells its sender what to send instead."""


def read(request: Any, name: str) -> Array | None:  # noqa: ANN401 - Triton's objects are untyped
    """A tensor of the request, or None when it was left out."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def texts(values: Array) -> list[str]:
    """Decode a BYTES tensor.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values.reshape(-1)]
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the text is not UTF-8 ({error.reason} at byte {error.start}): encode it as UTF-8"
        ) from error


def answer(outputs: Mapping[str, Array]) -> Any:  # noqa: ANN401 - Triton's objects are untyped
    """A response with these tensors."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


def refuse(message: str) -> Any:  # noqa: ANN401 - Triton's objects are untyped
    """A response with an error."""
    return pb_utils.InferenceResponse([], pb_utils.TritonError(message))


def each(requests: Sequence[Any], handle: Callable[[Any], Mapping[str, Array]]) -> list[Any]:
    """Answer requests one by one: a bad one gets its error, the others of the batch their result."""
    responses = []
    for request in requests:
        try:
            responses.append(answer(handle(request)))
        except RequestError as error:
            responses.append(refuse(str(error)))
    return responses


def bytes_tensor(values: Sequence[bytes]) -> Array:
    """A BYTES tensor [B, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    array[:, 0] = values
    return array
