"""The compile stage for TensorRT: an exported graph → a plan for one GPU product in the store."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder.engines.onnx_runtime import engine_fields
from diffusion_builder.engines.tensorrt import plan_check, run, sku
from diffusion_builder.engines.tensorrt.command import Files, TensorRTOptions, arguments, flags
from diffusion_builder.engines.tensorrt.profiles import Profile, optimization_profiles
from diffusion_builder.graphs.onnx_files import MODEL
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.enums import Component, Runtime
from diffusion_contract.tensors import interface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from diffusion_contract.spec import Shapes

PLAN = "model.plan"
LAYERS = "layers.json"
_TIMING = "timing"
_COMPILE_VERSION = 1


@dataclass(frozen=True)
class PlanRequest:
    """The graph to compile and its target.

    Args:
        onnx: the exported graph.
        target: the GPU product, as in the node label.
        shapes: the profile that is served.
        options: settings of the build.
    """

    onnx: Artifact
    target: str
    shapes: Shapes
    options: TensorRTOptions

    @property
    def component(self) -> Component:
        """Which one it is."""
        return Component(self.onnx.manifest.extra["component"])

    def profiles(self) -> tuple[Profile, ...]:
        """Its optimization profiles."""
        return optimization_profiles(self.component, self.onnx.manifest.extra["facts"], self.shapes)


def compile_plan(
    store: Store, request: PlanRequest, on_phase: Callable[[str, float | None], None]
) -> tuple[Artifact, bool]:
    """Compile one graph; a plan that is in the store already needs no GPU.

    Args:
        store: where the graph is and the plan goes.
        request: what is compiled.
        on_phase: called with the phase: parse, optimize, save, check, and how far the whole is (0 to 1).

    Returns:
        The engine artifact, and whether it was in the store already.

    Raises:
        BadInputError: a target, profile or graph that cannot be compiled here.
        UnavailableError: there is no GPU.
        StoreError: the store is not as it should be.
    """
    target = sku.validate_product(request.target)
    profiles = request.profiles()
    program = run.trtexec()
    version = run.version(program)
    tools = {str(Runtime.TENSORRT): str(version)}
    fields = engine_fields(request.onnx, Runtime.TENSORRT, target)
    content = request.onnx.manifest.extra["content"]
    # The profiles are among the flags.
    build_flags = flags(profiles, request.options)
    inputs = {"version": _COMPILE_VERSION, "content": content, **fields, "flags": build_flags, "tools": tools}

    def write(folder: Path) -> Mapping[str, Any]:
        sku.require_gpu(target, run.gpus())
        with _timing(store.root / _TIMING / f"{target}-{version}") as timing:
            files = Files(request.onnx.path / MODEL, folder / PLAN, timing, folder / LAYERS)
            command = arguments(files, profiles, request.options)
            activations = run.build(
                program, command, request.component, lambda step: on_phase(step.phase, step.fraction)
            )
        on_phase("validate", None)
        plan = plan_check.read(folder / PLAN)
        if plan is not None:
            plan_check.check(plan, request.component, interface(request.component, fields["facts"]), profiles)
        return {
            **fields,
            "runtimeVersion": str(version),
            "profiles": len(profiles),
            "activationBytes": list(activations),
            "planChecked": plan is not None,
        }

    needed = request.onnx.manifest.size * 5 // 4
    recipe = Recipe(Kind.ENGINE, inputs, tools, required_bytes=needed, derived_from=(request.onnx,))
    return store.publish(recipe, write)


@contextmanager
def _timing(cache: Path) -> Iterator[Path]:
    """A copy of the cache, since several Jobs use one at once; it is given back when the build has worked."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "timing"
        if cache.is_file():
            shutil.copyfile(cache, copy)
        yield copy
        _merge_timing_cache(copy, cache)


def _merge_timing_cache(copy: Path, cache: Path) -> None:
    """Publish a copy of the cache; of two Jobs at once the last one's timings stay, which only costs time."""
    if not copy.is_file():
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    staging = cache.with_name(f".tmp-{cache.name}-{secrets.token_hex(4)}")
    try:
        shutil.copyfile(copy, staging)
        os.replace(staging, cache)  # noqa: PTH105 - says that a file in the way is replaced
    finally:
        staging.unlink(missing_ok=True)
