"""Compiling with TensorRT: `trtexec` in the Job that runs on the GPU the engine is for.

`profiles`, `command`, `log`, `sku` and the comparison in `plan_check` are pure; `run` and `build` do the I/O.
Nothing here imports TensorRT except `plan_check`, where it is installed.
"""
