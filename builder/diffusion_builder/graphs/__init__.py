"""ONNX graphs: their files, their contents, how far they are from torch."""
