"""Names of a graph's files and the opset of all graphs."""

from __future__ import annotations

# The newest that every TensorRT 10 reads, and the first with LayerNormalization as one operator.
OPSET = 17
MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
