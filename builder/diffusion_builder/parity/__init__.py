"""The stage parity: images of a repository, compared with those of diffusers from the same sources.

The published files are executed, without Triton: every `config.pbtxt` is read back into the typed graph, Python models
run with a stand-in for Triton's module, engines run in ONNX Runtime on the CPU (for TensorRT the exported graph that
the plan was made from).
"""
