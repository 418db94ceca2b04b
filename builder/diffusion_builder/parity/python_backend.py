"""Runs a Python model of a repository without Triton."""

from __future__ import annotations

import importlib
import itertools
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

Array = NDArray[Any]
_TRITON = "triton_python_backend_utils"
_PACKAGE = "_diffusion_builder_served_{}"
_numbers = itertools.count()


@dataclass(frozen=True)
class Tensor:
    """Triton's `pb_utils.Tensor`."""

    tensor_name: str
    array: Array

    def name(self) -> str:
        """Its name."""
        return self.tensor_name

    def as_numpy(self) -> Array:
        """Its elements."""
        return self.array

    def shape(self) -> list[int]:
        """Its dimensions with the batch."""
        return list(self.array.shape)


@dataclass(frozen=True)
class TritonError:
    """Triton's `pb_utils.TritonError`."""

    text: str

    def message(self) -> str:
        """What went wrong."""
        return self.text


@dataclass(frozen=True)
class InferenceResponse:
    """Triton's `pb_utils.InferenceResponse`."""

    tensors: Sequence[Tensor] = ()
    error: TritonError | None = None


@dataclass(frozen=True)
class InferenceRequest:
    """Triton's `pb_utils.InferenceRequest`."""

    tensors: Sequence[Tensor]
    output_names: Sequence[str]

    def inputs(self) -> Sequence[Tensor]:
        """Its inputs."""
        return self.tensors

    def requested_output_names(self) -> Sequence[str]:
        """Outputs to compute."""
        return self.output_names


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """Triton's function of that name."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


@contextmanager
def load_model(name: str, folder: Path) -> Iterator[Any]:
    """Load `model.py` of a version's folder; yields a function from inputs and output names to these outputs.

    Args:
        name: of the model, for messages.
        folder: with model.py and what it imports.
    """
    package = _PACKAGE.format(next(_numbers))
    with _fake_pb_utils(), _no_bytecode():
        module = ModuleType(package)
        module.__path__ = [str(folder)]
        sys.modules[package] = module
        try:
            model = importlib.import_module(f"{package}.model").TritonPythonModel()
            if hasattr(model, "initialize"):
                model.initialize({"model_name": name, "model_config": "{}"})
            yield lambda inputs, output_names: _infer(name, model, inputs, output_names)
        finally:
            for loaded in [item for item in sys.modules if item == package or item.startswith(f"{package}.")]:
                del sys.modules[loaded]


def _infer(name: str, model: Any, inputs: Mapping[str, Array], output_names: Sequence[str]) -> Mapping[str, Array]:  # noqa: ANN401
    request = InferenceRequest([Tensor(key, array) for key, array in inputs.items()], output_names)
    (response,) = model.execute([request])
    if response.error is not None:
        raise BadInputError(Reason.PARITY_FAILED, f"{name} rejects the test request: {response.error.message()}")
    return {tensor.name(): tensor.as_numpy() for tensor in response.tensors}


@contextmanager
def _fake_pb_utils() -> Iterator[None]:
    """Let models import Triton's module; outside of Triton it does not exist."""
    module: Any = ModuleType(_TRITON)
    for item in (Tensor, TritonError, InferenceResponse, InferenceRequest, get_input_tensor_by_name):
        setattr(module, item.__name__, item)
    before = sys.modules.get(_TRITON)
    sys.modules[_TRITON] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules[_TRITON]
        else:
            sys.modules[_TRITON] = before


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Importing must not add files to an artifact."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
