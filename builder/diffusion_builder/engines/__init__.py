"""Compilers: ONNX Runtime and TensorRT."""
