"""Shared by all Python models: read a request's tensors, answer each request on its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from .errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

Array = NDArray[Any]


def read(request: Any, name: str) -> Array | None:  # noqa: ANN401 - Triton's objects are untyped
    """A tensor of the request, or None when it was left out."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def response(outputs: Mapping[str, Array]) -> Any:  # noqa: ANN401 - Triton's objects are untyped
    """A response with these tensors."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


def error_response(message: str) -> Any:  # noqa: ANN401 - Triton's objects are untyped
    """A response with an error."""
    return pb_utils.InferenceResponse([], pb_utils.TritonError(message))


def respond_each(
    requests: Sequence[Any],
    compute: Callable[[Callable[[str], Array | None], Collection[str]], Mapping[str, Array]],
) -> list[Any]:
    """Answer requests one by one: an invalid one gets its error, the others of the batch their outputs.

    Args:
        requests: of Triton.
        compute: the outputs of one request, from a function that reads an input by name and the requested outputs.
    """
    responses = []
    for request in requests:
        try:
            responses.append(response(compute(partial(read, request), request.requested_output_names())))
        except InvalidRequest as error:
            responses.append(error_response(str(error)))
    return responses


def bytes_tensor(values: Sequence[bytes]) -> Array:
    """A BYTES tensor [B, 1]."""
    array = np.empty((len(values), 1), dtype=object)
    array[:, 0] = values
    return array
