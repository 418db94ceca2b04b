"""The compile stage for ONNX Runtime: offline graph optimization on the CPU.

The level is EXTENDED, not ALL: ALL also rewrites the graph into the blocked layout of the CPU that
optimizes, and such a file is slow or rejected on another CPU. EXTENDED depends on nothing but the version of
ONNX Runtime; the layout is chosen when the file is loaded, on the machine that serves.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs.onnx_files import MODEL, WEIGHTS
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.enums import Runtime
from diffusion_contract.skus import CPU

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LEVEL = "ORT_ENABLE_EXTENDED"
_COMPILE_VERSION = 1
_EXTERNAL_FROM_BYTES = "1024"


def compile_onnx(store: Store, onnx: Artifact, runtime: str, target: str) -> tuple[Artifact, bool]:
    """Optimize one graph.

    Size profiles are not part of the name: ONNX Runtime keeps dimensions open, so another profile is the same engine.

    Args:
        store: where the graph is and the engine goes.
        onnx: the exported graph.
        runtime: `onnxruntime`.
        target: `cpu`.

    Returns:
        The engine artifact, and whether it was in the store already.

    Raises:
        BadInputError: unknown runtime or target, or a graph that cannot be optimized.
        StoreError: the store is not as it should be.
    """
    if (runtime, target) != (Runtime.ONNXRUNTIME, CPU):
        raise BadInputError(
            Reason.INVALID_ARGUMENT,
            f"runtime {runtime!r} for target {target!r}: supported are runtime {Runtime.ONNXRUNTIME} for target {CPU}, "
            f"and {Runtime.TENSORRT} for GPU products",
        )
    tools = {"onnxruntime": version("onnxruntime")}
    fields = engine_fields(onnx, runtime, target) | {"level": _LEVEL}
    # Content, not name: a graph that was exported again and came out the same is not compiled again.
    inputs = {"version": _COMPILE_VERSION, "content": onnx.manifest.extra["content"], **fields, "tools": tools}

    def write(folder: Path) -> Mapping[str, Any]:
        _optimize(onnx.path, folder, str(fields["component"]))
        return {**fields, "runtimeVersion": tools["onnxruntime"]}

    recipe = Recipe(Kind.ENGINE, inputs, tools, required_bytes=2 * onnx.manifest.size, derived_from=(onnx,))
    return store.publish(recipe, write)


def engine_fields(onnx: Artifact, runtime: str, target: str) -> dict[str, Any]:
    """What an engine has of its graph, and what it is for: part of its name and of its manifest."""
    extra = onnx.manifest.extra
    return {"component": extra["component"], "facts": extra["facts"], "runtime": str(runtime), "target": target}


def _optimize(source: Path, target: Path, component: str) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVEL)
    options.optimized_model_filepath = str(target / MODEL)
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if (source / WEIGHTS).exists():
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", _EXTERNAL_FROM_BYTES
        )
    try:
        ort.InferenceSession(source / MODEL, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        shutil.rmtree(target, ignore_errors=True)
        raise BadInputError(
            Reason.COMPILE_FAILED, f"ONNX Runtime cannot optimize {component}: {str(error).splitlines()[0][:300]}"
        ) from error
