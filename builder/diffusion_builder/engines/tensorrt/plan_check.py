"""Comparing a compiled plan with the contract, where the `tensorrt` package is installed.

Deserialising a plan needs the GPU that it is for, so this runs in the Job that has just built it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_builder.engines.tensorrt.profiles import InputProfile, Profile
from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from diffusion_contract.tensors import Interface, Tensor

# Names of `tensorrt.DataType`, where they are not ours.
_TYPES: Mapping[str, str] = {"FP32": "FLOAT", "FP16": "HALF"}


@dataclass(frozen=True)
class PlanTensor:
    """An input or output of a plan; `dims` with the batch, -1 where open; `dtype` as TensorRT names it."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class TensorRTPlan:
    """Tensors and profiles of a plan; profiles in the order of the plan's inputs."""

    inputs: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    profiles: tuple[Profile, ...]


def read(path: Path, module: str = "tensorrt") -> TensorRTPlan | None:
    """Read a plan.

    Args:
        path: the file.
        module: the Python package of TensorRT.

    Returns:
        Its tensors and profiles, or None where the package is not installed.

    Raises:
        BadInputError: TensorRT rejects it.
    """
    try:
        tensorrt: Any = importlib.import_module(module)
    except ImportError:
        return None
    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BadInputError(
            Reason.VERSION_MISMATCH,
            f"{path.name}: the Python package of TensorRT {tensorrt.__version__} cannot load what trtexec has just "
            "made; both must be of one version",
        )
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
    return TensorRTPlan(
        tuple(_tensor(engine, name) for name in inputs),
        tuple(_tensor(engine, name) for name in names if name not in inputs),
        tuple(
            tuple(_input_profile(engine, name, index) for name in inputs)
            for index in range(engine.num_optimization_profiles)
        ),
    )


def _tensor(engine: Any, name: str) -> PlanTensor:  # noqa: ANN401 - TensorRT ships no types
    return PlanTensor(name, str(engine.get_tensor_dtype(name).name), tuple(engine.get_tensor_shape(name)))


def _input_profile(engine: Any, name: str, index: int) -> InputProfile:  # noqa: ANN401 - TensorRT ships no types
    smallest, usual, largest = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, index))
    return InputProfile(name, smallest, usual, largest)


def check(plan: TensorRTPlan, component: str, interface: Interface, profiles: Sequence[Profile]) -> None:
    """Compare a plan with the contract and the profiles that were requested.

    Args:
        plan: as TensorRT describes it.
        component: which one it is, for the message.
        interface: tensors of its graph.
        profiles: what it was built for.

    Raises:
        BadInputError: names, element types, ranks or profiles differ; the message names all differences.
    """
    problems = list(differences(plan, interface, profiles))
    if problems:
        raise BadInputError(
            Reason.COMPILE_FAILED, f"{component}: the plan differs from the request: {'; '.join(problems)}"
        )


def differences(plan: TensorRTPlan, interface: Interface, profiles: Sequence[Profile]) -> Iterator[str]:
    """Every difference, in words."""
    yield from _tensor_differences("input", plan.inputs, interface.inputs)
    yield from _tensor_differences("output", plan.outputs, interface.outputs)
    if len(plan.profiles) != len(profiles):
        yield f"{len(plan.profiles)} optimization profiles instead of {len(profiles)}"
        return
    for index, (actual, expected) in enumerate(zip(plan.profiles, profiles, strict=True)):
        actual_by_name = {item.name: item for item in actual}
        for item in expected:
            actual_input = actual_by_name.get(item.name, item)
            if actual_input != item:
                yield f"profile {index} of {item.name} is {_shapes(actual_input)} instead of {_shapes(item)}"


def _tensor_differences(role: str, actual: Sequence[PlanTensor], expected: Sequence[Tensor]) -> Iterator[str]:
    actual_by_name = {tensor.name: tensor for tensor in actual}
    for name in sorted(actual_by_name.keys() - {tensor.name for tensor in expected}):
        yield f"unexpected {role} {name}"
    for tensor in expected:
        plan_tensor = actual_by_name.get(tensor.name)
        if plan_tensor is None:
            yield f"no {role} {tensor.name}"
        elif plan_tensor.dtype != (expected_dtype := _TYPES.get(tensor.dtype, str(tensor.dtype))):
            yield f"{role} {tensor.name} is {plan_tensor.dtype} instead of {expected_dtype}"
        elif len(plan_tensor.dims) != 1 + len(tensor.dims) or plan_tensor.dims[0] != -1:
            yield f"{role} {tensor.name} has dimensions {plan_tensor.dims} instead of an open batch and {tensor.dims}"


def _shapes(profile: InputProfile) -> str:
    return " / ".join("x".join(str(size) for size in shape) for shape in (profile.min, profile.opt, profile.max))
