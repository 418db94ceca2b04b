"""From parsed flags to a plan, in the order and with the messages of trtexec's `sampleEngines.cpp`."""

from __future__ import annotations

import importlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.tensorrt.trtexec.console import error, info, library, warning
from tests.support.tensorrt.trtexec.plan_cache import FOLDER_VARIABLE, CompiledPlan, PlanCache, compilation_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tensorrt.trtexec.options import Bounds, Options

# Only the process that compiles has it on its path.
trt: Any = importlib.import_module("tensorrt_rtx_bindings")

_DEFAULT_DIMENSION = 1
_SEVERITIES = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I"}


class _Log(trt.ILogger):  # type: ignore[misc]  # the bindings ship no types
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.messages: list[tuple[str, str]] = []

    def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - the bindings ship no types
        if severity.name in _SEVERITIES:
            self.messages.append((_SEVERITIES[severity.name], message))
            library(_SEVERITIES[severity.name], message)


def compile_network(options: Options) -> bytes | None:
    """Parse and compile; returns the plan, or None after saying why there is none."""
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    # The parser owns the weights that the network points to.
    parser = trt.OnnxParser(network, log)
    if not _parse(parser, options):
        return None
    config = builder.create_builder_config()
    _configure(config, options)
    if not _add_profiles(builder, network, config, options.profiles):
        return None
    began = time.monotonic()
    plan = _serialize(builder, network, config, options, log)
    if plan is None:
        return None
    info(f"Created engine with size: {len(plan) / (1 << 20):.3f} MiB")
    info(f"Engine built in {time.monotonic() - began:.4f} sec.")
    _save_timings(config, options)
    _save_layers(network, options)
    return plan


def _serialize(builder: Any, network: Any, config: Any, options: Options, log: _Log) -> bytes | None:  # noqa: ANN401
    """Compile, or take what the same graph was compiled into before, with the messages of that."""
    folder = os.environ.get(FOLDER_VARIABLE)
    cache, key = PlanCache(Path(folder)) if folder else None, ""
    if cache is not None:
        key = compilation_key(options.onnx, _settings(options))
        cached = cache.read(key)
        if cached is not None:
            for severity, message in cached.messages:
                library(severity, message)
            return cached.plan
    begin = len(log.messages)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return None
    if cache is not None:
        cache.write(key, CompiledPlan(bytes(plan), tuple(log.messages[begin:])))
    return bytes(plan)


def _settings(options: Options) -> tuple[str, ...]:
    """Everything besides the graph that a plan depends on."""
    bounds = [profile.shapes for profile in options.profiles]
    numbers = json.dumps([options.level, options.workspace, bounds], sort_keys=True)
    return trt.__version__, Path(__file__).read_text(), numbers


def _parse(parser: Any, options: Options) -> bool:  # noqa: ANN401 - the bindings ship no types
    info("Start parsing network model.")
    began = time.monotonic()
    if not parser.parse_from_file(str(options.onnx)):
        error("Failed to parse onnx file")
    info(f"Finished parsing network model. Parse time: {time.monotonic() - began:.4f}")
    if parser.num_errors:
        error("Parsing model failed")
    return not parser.num_errors


def _configure(config: Any, options: Options) -> None:  # noqa: ANN401 - the bindings ship no types
    # TensorRT for RTX asks for it when there is no GPU to look at; an L4 is 8.9.
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.builder_optimization_level = options.level
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    with warnings.catch_warnings():
        # Timing caches do nothing in TensorRT for RTX, but the file's way is the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        timing_cache = (
            options.timing_cache.read_bytes() if options.timing_cache and options.timing_cache.exists() else b""
        )
        config.set_timing_cache(config.create_timing_cache(timing_cache), ignore_mismatch=False)


def _save_timings(config: Any, options: Options) -> None:  # noqa: ANN401 - the bindings ship no types
    if options.timing_cache is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            options.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))


def _save_layers(network: Any, options: Options) -> None:  # noqa: ANN401 - the bindings ship no types
    if options.layers is not None:
        layers = [network.get_layer(index).name for index in range(network.num_layers)]
        bindings = [network.get_output(index).name for index in range(network.num_outputs)]
        bindings += [tensor.name for tensor in _inputs(network)]
        options.layers.write_text(json.dumps({"Layers": layers, "Bindings": bindings}))


def _inputs(network: Any) -> Iterator[Any]:  # noqa: ANN401 - the bindings ship no types
    return (network.get_input(index) for index in range(network.num_inputs))


def _add_profiles(builder: Any, network: Any, config: Any, profiles: tuple[Bounds, ...]) -> bool:  # noqa: ANN401
    names = {tensor.name for tensor in _inputs(network)}
    profile_inputs = {name for profile in profiles for shapes in profile.shapes.values() for name in shapes}
    for name in sorted(profile_inputs - names):
        error(
            f'Cannot find input tensor with name "{name}" in the network inputs! '
            "Please make sure the input tensor names are correct."
        )
        return False
    return all(_add_profile(builder, network, config, index, bounds) for index, bounds in enumerate(profiles))


def _add_profile(builder: Any, network: Any, config: Any, index: int, bounds: Bounds) -> bool:  # noqa: ANN401
    profile = builder.create_optimization_profile()
    for tensor in _inputs(network):
        dims = tuple(tensor.shape)
        if -1 not in dims:
            continue
        shapes = bounds.of(tensor.name)
        if shapes is None:
            fixed = tuple(dim if dim > 0 else _DEFAULT_DIMENSION for dim in dims)
            text = "x".join(str(dim) for dim in fixed)
            warning(
                f"Dynamic dimensions required for input: {tensor.name}, but no shapes were provided. "
                f"Automatically overriding shape to: {text}"
            )
            shapes = (fixed, fixed, fixed)
        smallest, usual, largest = ("x".join(str(size) for size in shape) for shape in shapes)
        try:
            profile.set_shape(tensor.name, *shapes)
        except ValueError as problem:
            error(f"Error in set dimensions to profile: {problem}")
            return False
        info(
            f"Set shape of input tensor {tensor.name} for optimization profile {index} to: "
            f"MIN={smallest} OPT={usual} MAX={largest}"
        )
    if not profile:
        error("Required optimization profile is invalid")
        return False
    if config.add_optimization_profile(profile) < 0:
        error("Error in add optimization profile")
        return False
    return True
