"""Trace a module to ONNX, and write a graph so that the same module always gives the same bytes.

torch's TorchScript exporter is used: the dynamo one fails on SD 1.5's UNet.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from diffusion_builder.components.registry import Sizes, example
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs.onnx_files import MODEL, OPSET, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from diffusion_builder.components.base import LoadedModule
    from diffusion_contract.enums import Component
    from diffusion_contract.tensors import Interface

_EXTERNAL_FROM_BYTES = 1024
# Weights are mapped into memory, where vector instructions like round addresses.
_ALIGNMENT = 64


def trace(component: Component, interface: Interface, loaded: LoadedModule, sizes: Sizes, target: Path) -> None:
    """Write `model.onnx` and its weights into a folder.

    Args:
        component: named in messages.
        interface: names and dimensions of inputs and outputs.
        loaded: what is traced.
        sizes: of the example inputs.
        target: an empty folder.

    Raises:
        BadInputError: the module cannot be traced.
    """
    # Beside the target, since weights can be larger than the machine's own temporary folder.
    with tempfile.TemporaryDirectory(dir=target, prefix=".trace-") as scratch:
        traced = Path(scratch) / MODEL
        with _external_weights() as weights:
            _export(component, interface, loaded, example(interface, loaded, sizes, seed=1), traced)
        _pack(traced, weights, target)


def _export(
    component: Component, interface: Interface, loaded: LoadedModule, inputs: tuple[torch.Tensor, ...], path: Path
) -> None:
    axes = {
        tensor.name: {0: "batch"} | {i: str(dim) for i, dim in enumerate(tensor.dims, 1) if dim in loaded.dynamic}
        for tensor in (*interface.inputs, *interface.outputs)
    }
    try:
        with torch.no_grad():
            torch.onnx.export(
                loaded.module,
                inputs,
                str(path),
                input_names=[tensor.name for tensor in interface.inputs],
                output_names=[tensor.name for tensor in interface.outputs],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        raise BadInputError(
            Reason.EXPORT_FAILED, f"{component} cannot be exported to ONNX: {first_line(error)}"
        ) from error


@contextmanager
def _external_weights() -> Iterator[dict[str, torch.Tensor]]:
    """Let torch write graphs whose weights are inputs, and hand the weights out as they are.

    Otherwise torch holds a graph below 2 GiB four times: as tensors, as protobuf, and twice as bytes. Its public
    parameter for this, `export_params`, drops what constant folding has made of the weights.

    Yields:
        name to tensor; filled by an export.
    """
    weights: dict[str, torch.Tensor] = {}
    graph: Any = torch._C.Graph  # noqa: SLF001 - see above
    export = graph._export_onnx  # noqa: SLF001

    def export_without_weights(self: object, tensors: dict[str, torch.Tensor], *arguments: object) -> object:
        weights.update(tensors)
        return export(self, {}, *arguments)

    graph._export_onnx = export_without_weights  # noqa: SLF001
    try:
        yield weights
    finally:
        graph._export_onnx = export  # noqa: SLF001


def _pack(traced: Path, weights: dict[str, torch.Tensor], target: Path) -> None:
    """Copy a graph, its larger weights into one file, one weight at a time: never two copies of a model in memory."""
    graph = onnx.load_model(str(traced), load_external_data=False)
    for node in graph.graph.node:
        # Names carry Python source positions of the machine that exported, which would change the digest.
        node.doc_string = ""
        del node.metadata_props[:]
    _declare(graph.graph, weights)

    def read(tensor: onnx.TensorProto) -> bytes:
        weight = weights.pop(tensor.name, None)
        # As an array of bytes, since numpy knows no bfloat16.
        return content(tensor, traced.parent) if weight is None else _bytes(weight)

    write(graph, graph.graph.initializer, read, target)


def _bytes(weight: torch.Tensor) -> bytes:
    raw_bytes: bytes = weight.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return raw_bytes


def _declare(graph: onnx.GraphProto, weights: dict[str, torch.Tensor]) -> None:
    """Make initializers, still without content, of the inputs that are weights."""
    inputs = list(graph.input)
    del graph.input[:]
    for item in inputs:
        if item.name in weights:
            shape = list(weights[item.name].shape)
            graph.initializer.add(name=item.name, data_type=item.type.tensor_type.elem_type, dims=shape)
        else:
            graph.input.append(item)


def write(
    graph: onnx.ModelProto,
    tensors: Iterable[onnx.TensorProto],
    read: Callable[[onnx.TensorProto], bytes],
    target: Path,
) -> None:
    """Write a graph and its weights.

    Args:
        graph: to which the tensors belong.
        tensors: all that may have bytes in a file.
        read: gives each tensor's bytes when it is its turn.
        target: folder to write to.
    """
    with (target / WEIGHTS).open("wb") as stream:
        for tensor in tensors:
            _place(tensor, read(tensor), stream)
        empty = stream.tell() == 0
    if empty:
        (target / WEIGHTS).unlink()
    (target / MODEL).write_bytes(graph.SerializeToString(deterministic=True))


def content(tensor: onnx.TensorProto, folder: Path) -> bytes:
    """Bytes of a tensor in a graph, or in a file beside it."""
    if not tensor.external_data:
        # Small constants come as typed fields instead.
        inside: bytes = onnx.numpy_helper.to_array(tensor).tobytes() if not tensor.raw_data else tensor.raw_data
        return inside
    entry = {item.key: item.value for item in tensor.external_data}
    with (folder / entry["location"]).open("rb") as stream:
        stream.seek(int(entry.get("offset", 0)))
        outside: bytes = stream.read(int(entry["length"]) if "length" in entry else -1)
        return outside


def _place(tensor: onnx.TensorProto, content: bytes, stream: BinaryIO) -> None:
    """Point to the file, or keep small things in the graph itself."""
    name, dtype, dims = tensor.name, tensor.data_type, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type = name, dtype
    tensor.dims.extend(dims)
    if len(content) < _EXTERNAL_FROM_BYTES:
        tensor.raw_data = content
        return
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", str(stream.tell())), ("length", str(len(content)))):
        tensor.external_data.add(key=key, value=value)
    stream.write(content)
    stream.write(bytes(-stream.tell() % _ALIGNMENT))


def first_line(error: Exception) -> str:
    """First line of a library's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
