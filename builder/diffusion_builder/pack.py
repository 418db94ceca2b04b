"""Write a traced graph as two files: the graph, and all its larger weights in one.

Weights are copied one at a time, so that a model is never in memory twice; a graph of more than 2 GiB, which
protobuf cannot hold in one piece, is no special case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from diffusion_builder.onnx_files import MODEL, WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

# Smaller tensors stay in the graph, where runtimes fold them.
_EXTERNAL_FROM_BYTES = 1024
# Runtimes map weights into memory and read them there.
_ALIGNMENT = 64


def pack(traced: Path, target: Path) -> None:
    """Copy a graph into `target` as `model.onnx` and, where it has larger weights, `model.onnx.data`.

    Args:
        traced: a graph, perhaps with external data in files beside it.
        target: an existing folder.

    Raises:
        onnx.checker.ValidationError: the result is not a valid graph.
        OSError: a file cannot be read or written.
    """
    graph = onnx.load_model(str(traced), load_external_data=False)
    for node in graph.graph.node:
        # Names carry Python source positions of the machine that exported, which would change the digest.
        node.doc_string = ""
        del node.metadata_props[:]
    weights = target / WEIGHTS
    with weights.open("wb") as stream:
        for tensor in graph.graph.initializer:
            content = _content(tensor, traced.parent)
            if len(content) >= _EXTERNAL_FROM_BYTES:
                stream.write(bytes(-stream.tell() % _ALIGNMENT))
                _point_to(tensor, stream.tell(), len(content))
                stream.write(content)
            elif tensor.external_data:
                _put_back(tensor, content)
    if weights.stat().st_size == 0:
        weights.unlink()
    (target / MODEL).write_bytes(graph.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(target / MODEL))


def _content(tensor: onnx.TensorProto, folder: Path) -> bytes:
    if not tensor.external_data:
        return bytes(tensor.raw_data)
    entry = {item.key: item.value for item in tensor.external_data}
    with (folder / entry["location"]).open("rb") as stream:
        stream.seek(int(entry.get("offset", 0)))
        content: bytes = stream.read(int(entry["length"]) if "length" in entry else -1)
        return content


def _point_to(tensor: onnx.TensorProto, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _put_back(tensor: onnx.TensorProto, content: bytes) -> None:
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.raw_data = content
