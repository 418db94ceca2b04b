"""How far an exported graph is from the torch module that it was traced from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch

from diffusion_builder.components.registry import Sizes, example
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs.onnx_files import MODEL
from diffusion_builder.graphs.onnx_graph import content, first_line, write
from diffusion_contract.enums import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from diffusion_builder.components.base import LoadedModule
    from diffusion_contract.enums import Component
    from diffusion_contract.tensors import Interface

# Largest deviation from float32, relative to the largest output.
TOLERANCES: Mapping[Precision, float] = {
    Precision.FLOAT32: 1e-3,
    Precision.FLOAT16: 2e-2,
    Precision.BFLOAT16: 1e-3,
}

_BFLOAT16 = onnx.TensorProto.BFLOAT16
# An output of zeros has no relative deviation.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Deviation:
    """The worst of all outputs.

    Args:
        absolute: largest difference.
        relative: largest difference over the output's largest magnitude.
    """

    absolute: float
    relative: float


@dataclass(frozen=True)
class Case:
    """Inputs and what torch makes of them in float32."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


def reference_cases(interface: Interface, loaded: LoadedModule, all_sizes: Sequence[Sizes]) -> list[Case]:
    """Ask torch, in float32 with the weights as rounded as they are in the graph; the module stays in float32."""
    module = loaded.module.float()
    cases = []
    for sizes in all_sizes:
        inputs = example(interface, loaded, sizes, seed=2)
        with torch.no_grad():
            outputs = module(*inputs)
        cases.append(Case(inputs, outputs if isinstance(outputs, tuple) else (outputs,)))
    return cases


def validate_graph(component: Component, folder: Path) -> None:
    """Validate a graph's structure, with types and shapes of every node.

    Raises:
        BadInputError: the graph is not valid ONNX.
    """
    try:
        onnx.checker.check_model(str(folder / MODEL), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BadInputError(
            Reason.EXPORT_FAILED, f"{component}: the graph is not valid: {first_line(error)}"
        ) from error


def measure(component: Component, interface: Interface, folder: Path, cases: Sequence[Case]) -> Deviation:
    """Run the graph in ONNX Runtime and compare.

    Raises:
        BadInputError: an output has another shape, or the graph cannot be run.
    """
    options = onnxruntime.SessionOptions()
    # The graph as it is: an optimized one is validated by what is served, and would take memory for rearranged weights.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in interface.inputs]
    worst = Deviation(0.0, 0.0)
    for case in cases:
        outputs = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, case.inputs, strict=True)})
        for tensor, expected, actual in zip(interface.outputs, case.outputs, outputs, strict=True):
            deviation = _compare(f"{component}: {tensor.name}", expected.numpy(), actual)
            worst = Deviation(max(worst.absolute, deviation.absolute), max(worst.relative, deviation.relative))
    return worst


def require_tolerance(component: Component, deviation: Deviation, precision: Precision) -> None:
    """Reject a graph that is too far from torch.

    Raises:
        BadInputError: with the numbers.
    """
    allowed = TOLERANCES[precision]
    # Written so that NaN fails.
    if not deviation.relative <= allowed:
        raise BadInputError(
            Reason.GRAPH_PARITY_FAILED,
            f"{component} in {precision} deviates from torch by {deviation.absolute:.2e}, which is "
            f"{deviation.relative:.2e} of its largest output; {allowed:.0e} is allowed",
        )


def widen_to_float32(source: Path, target: Path) -> None:
    """Write a graph with every bfloat16 as float32, weights already rounded.

    ONNX Runtime's CPU kernels and ONNX's own type rules of our opset know no bfloat16. TensorRT does. What is proved
    with the twin is the graph and its weights, not the rounding between nodes.
    """
    graph = onnx.load_model(str(source / MODEL), load_external_data=False)
    tensors = [*graph.graph.initializer]
    for node in graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _BFLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for value in (*graph.graph.value_info, *graph.graph.output):
        if value.type.tensor_type.elem_type == _BFLOAT16:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    write(graph, tensors, lambda tensor: _widen(tensor, content(tensor, source)), target)


def _widen(tensor: onnx.TensorProto, stored: bytes) -> bytes:
    """A bfloat16 is the upper half of a float32."""
    if tensor.data_type != _BFLOAT16:
        return stored
    tensor.data_type = onnx.TensorProto.FLOAT
    return (np.frombuffer(stored, dtype=np.uint16).astype(np.uint32) << 16).tobytes()


def _compare(name: str, expected: npt.NDArray[np.float32], actual: npt.NDArray[np.float32]) -> Deviation:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise BadInputError(
            Reason.GRAPH_PARITY_FAILED,
            f"{name} is {actual.dtype} {list(actual.shape)} in the graph and {expected.dtype} {list(expected.shape)} "
            "in torch",
        )
    if expected.dtype.kind != "f":
        return Deviation(0.0, 0.0) if np.array_equal(expected, actual) else Deviation(math.inf, math.inf)
    if not np.isfinite(expected).all():
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{name} is not finite in torch, with ordinary inputs: the weights are damaged, or too large for the "
            "precision",
        )
    if not np.isfinite(actual).all():
        # Not left to arithmetic: the larger of a number and NaN is the number.
        return Deviation(math.inf, math.inf)
    absolute = float(np.abs(expected - actual).max())
    return Deviation(absolute, absolute / max(float(np.abs(expected).max()), _SMALLEST))
