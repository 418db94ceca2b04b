"""Trace a module to ONNX, and write a graph so that the same module always gives the same bytes.

torch's TorchScript exporter is used: the dynamo one fails on SD 1.5's UNet.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from diffusion_builder.components.registry import Sizes, example
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.onnx_files import MODEL, OPSET, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from diffusion_builder.components.base import Loaded
    from diffusion_builder.contract import Component, Interface

_EXTERNAL_FROM_BYTES = 1024
# Weights are mapped into memory, where vector instructions like round addresses.
_ALIGNMENT = 64


def trace(component: Component, interface: Interface, loaded: Loaded, sizes: Sizes, target: Path) -> None:
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
        _export(component, interface, loaded, example(interface, loaded, sizes, seed=1), traced)
        _pack(traced, target)


def _export(
    component: Component, interface: Interface, loaded: Loaded, inputs: tuple[torch.Tensor, ...], path: Path
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


def _pack(traced: Path, target: Path) -> None:
    """Copy a graph, its larger weights into one file, one weight at a time: never two copies of a model in memory."""
    graph = onnx.load_model(str(traced), load_external_data=False)
    for node in graph.graph.node:
        # Names carry Python source positions of the machine that exported, which would change the digest.
        node.doc_string = ""
        del node.metadata_props[:]
    write(graph, graph.graph.initializer, traced.parent, target)


def write(
    graph: onnx.ModelProto,
    tensors: Iterable[onnx.TensorProto],
    source: Path,
    target: Path,
    change: Callable[[onnx.TensorProto, bytes], bytes] = lambda _tensor, content: content,
) -> None:
    """Write a graph and its weights.

    Args:
        graph: to which the tensors belong.
        tensors: all that may have bytes in a file.
        source: folder of those files.
        target: folder to write to.
        change: given each tensor and its bytes, returns what is written.
    """
    with (target / WEIGHTS).open("wb") as stream:
        for tensor in tensors:
            _place(tensor, change(tensor, _content(tensor, source)), stream)
        empty = stream.tell() == 0
    if empty:
        (target / WEIGHTS).unlink()
    (target / MODEL).write_bytes(graph.SerializeToString(deterministic=True))


def _content(tensor: onnx.TensorProto, folder: Path) -> bytes:
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
    """What a library says is wrong, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
