"""The export stage: a component of a checkpoint → a verified ONNX graph in the store.

torch's TorchScript exporter is used: the dynamo one fails on SD 1.5's UNet. This module imports torch only
inside the functions that trace, so that a cached artifact is found without it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests
from diffusion_builder.contract import CONTRACT_VERSION, Component
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.store import Artifact, Kind, Recipe, Store

if TYPE_CHECKING:
    from diffusion_builder.components import ComponentSpec, Loaded, Sizes

OPSET = 17
MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
# Bumped when the exported graph changes for unchanged weights.
_EXPORT_VERSION = 2
# Largest deviation from torch, relative to the largest output, per precision.
TOLERANCES: Mapping[str, float] = {"float32": 1e-3}
_PARTS: Mapping[Component, str | None] = {
    Component.TEXT_ENCODER: "text_encoder",
    Component.DENOISER: "unet",
    Component.SCHEDULER_STEP: None,
    Component.VAE_DECODER: "vae",
}
# Told the name of a phase when it begins.
OnPhase = Callable[[str], None]


def export(
    store: Store, source: Artifact, component: Component, precision: str, on_phase: OnPhase
) -> tuple[Artifact, bool]:
    """Export one component.

    Args:
        store: where the source is and the graph goes.
        source: the fetched checkpoint.
        component: which one.
        precision: element type of the weights; `float32`.
        on_phase: told load, trace, check, verify.

    Returns:
        The ONNX artifact, and whether it was in the store already.

    Raises:
        BadInputError: the component cannot be loaded, traced, or deviates from torch.
        StoreError: the store is not as it should be.
    """
    if precision not in TOLERANCES:
        raise BadInputError(Reason.INVALID_ARGUMENT, f"precision {precision!r}: use one of {', '.join(TOLERANCES)}")
    part = _PARTS[component]
    tools = {name: version(name) for name in ("torch", "diffusers", "transformers", "onnx")}
    inputs = {
        "version": [_EXPORT_VERSION, CONTRACT_VERSION],
        "component": str(component),
        # The component's own digest, not the checkpoint's: another UNet leaves the text encoder's graph alone.
        "content": source.manifest.extra["components"][part] if part else None,
        "precision": precision,
        "opset": OPSET,
        "tools": tools,
    }
    files = source.manifest.files.items()
    weights = sum(entry.size for name, entry in files if part and name.startswith(f"{part}/"))

    def write(folder: Path) -> Mapping[str, Any]:
        return _export(source.path / (part or ""), component, TOLERANCES[precision], folder, on_phase)

    # Half-precision weights double in size as float32.
    return store.publish(Recipe(Kind.ONNX, inputs, tools, needed_bytes=2 * weights), write)


def _export(folder: Path, component: Component, tolerance: float, target: Path, on_phase: OnPhase) -> Mapping[str, Any]:
    from diffusion_builder.components import COMPONENTS, Sizes
    from diffusion_builder.pack import pack

    spec = COMPONENTS[component]
    with _quiet():
        on_phase("load")
        loaded = _load(spec, folder)
        on_phase("trace")
        with tempfile.TemporaryDirectory(dir=target, prefix=".trace-") as scratch:
            traced = Path(scratch) / MODEL
            # Odd sizes: UNets with even ones skip the code that resizes to the skip connection's size.
            _trace(spec, loaded, Sizes(2, 9, 11), traced)
            on_phase("check")
            pack(traced, target)
        on_phase("verify")
        others = (Sizes(1, 8, 8), Sizes(3, 16, 12))
        error = max(_deviation(spec, loaded, target / MODEL, sizes, tolerance) for sizes in others)
    content = {name: digests.of_file(target / name) for name in (MODEL, WEIGHTS) if (target / name).exists()}
    return {
        "component": str(component),
        "content": digests.of_json(content),
        "facts": dict(loaded.facts),
        "maxAbsError": error,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' chatter out of the log; what matters is checked by `_deviation`."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(spec: ComponentSpec, folder: Path) -> Loaded:
    try:
        return spec.load(folder)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{spec.component} cannot be loaded: {_first_line(error)}. Do config.json and weights belong together?",
        ) from error


def _trace(spec: ComponentSpec, loaded: Loaded, sizes: Sizes, path: Path) -> None:
    """Write the graph to a file in an empty folder: above 2 GiB torch puts one file per weight beside it."""
    import torch

    from diffusion_builder.components import example

    interface = spec.interface
    axes = {
        tensor.name: {0: "batch"} | {i: str(dim) for i, dim in enumerate(tensor.dims, 1) if dim in spec.dynamic}
        for tensor in (*interface.inputs, *interface.outputs)
    }
    try:
        with torch.no_grad():
            torch.onnx.export(
                loaded.module,
                example(spec, loaded, sizes, seed=1),
                str(path),
                input_names=[tensor.name for tensor in interface.inputs],
                output_names=[tensor.name for tensor in interface.outputs],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        raise BadInputError(
            Reason.EXPORT_FAILED, f"{spec.component} cannot be exported to ONNX: {_first_line(error)}"
        ) from error


def _deviation(spec: ComponentSpec, loaded: Loaded, model: Path, sizes: Sizes, tolerance: float) -> float:
    """Largest absolute difference between ONNX Runtime and torch, over all outputs."""
    import onnxruntime
    import torch

    from diffusion_builder.components import example

    inputs = example(spec, loaded, sizes, seed=2)
    with torch.no_grad():
        expected = loaded.module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in spec.interface.inputs]
    got = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
    worst = 0.0
    for tensor, want, have in zip(spec.interface.outputs, expected, got, strict=True):
        scale = max(1.0, float(want.abs().max()))
        error = float((want - torch.from_numpy(have)).abs().max())
        if not error <= tolerance * scale:
            raise BadInputError(
                Reason.VERIFICATION_FAILED,
                f"{spec.component}: {tensor.name} deviates by {error:.2e} from torch, "
                f"{tolerance * scale:.0e} is allowed",
            )
        worst = max(worst, error)
    return worst


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
