"""The export stage: a component of a checkpoint → a verified ONNX graph in the store.

torch is imported only inside the functions that trace, so that a cached artifact is found without it.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests
from diffusion_builder.components import parts, sizes
from diffusion_builder.components.options import check
from diffusion_builder.components.parts import MAIN_PART, LoadContext, LoraWeights
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graphs.libraries import silence
from diffusion_builder.graphs.onnx_files import MODEL, OPSET, WEIGHTS
from diffusion_builder.sources import layout
from diffusion_builder.store import Artifact, Kind, Recipe, Store
from diffusion_contract.enums import Component, Precision
from diffusion_contract.exports import APPLIES, SHAPED, ExportOptions
from diffusion_contract.tensors import CONTRACT_VERSION

if TYPE_CHECKING:
    from diffusion_builder.components.base import ComponentSpec, LoadedModule
    from diffusion_builder.graphs.deviation import Case, Deviation
    from diffusion_contract.tensors import Interface


# Bumped when the exported graph changes for unchanged weights.
_EXPORT_VERSION = 5
# Bumped when the same LoRAs change weights in another way.
_MERGE_VERSION = 2
# Bytes per weight: a graph is there twice while it is packed; a bfloat16 one has a float32 twin for a while.
_WRITTEN: Mapping[Precision, int] = {Precision.FLOAT32: 8, Precision.FLOAT16: 4, Precision.BFLOAT16: 6}
# Called with the name of a phase when it begins.
OnPhase = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """The component to export and its options.

    Args:
        source: the fetched checkpoint.
        component: which one.
        precision: `float32`, `float16` or `bfloat16`.
        options: what else is requested.
    """

    source: Artifact
    component: Component
    precision: str = "float32"
    options: ExportOptions = field(default_factory=ExportOptions)


@dataclass(frozen=True)
class _SourceFolder:
    """A folder of a source: which, and the digest of what is in it."""

    source: Artifact
    name: str

    @property
    def folder(self) -> Path:
        return self.source.path / self.name

    @property
    def content(self) -> str:
        return str(self.source.manifest.extra["subfolders"][self.name])


def export(store: Store, request: ExportRequest, on_phase: OnPhase) -> tuple[Artifact, bool]:
    """Export one component.

    Args:
        store: where the sources are and the graph goes.
        request: what is exported.
        on_phase: called with the phase: load, trace, check, verify.

    Returns:
        The ONNX artifact, and whether it was in the store already.

    Raises:
        BadInputError: the component cannot be loaded, traced, or deviates from torch.
        StoreError: the store is not as it should be.
    """
    component, options = request.component, request.options
    if request.precision not in set(Precision):
        raise BadInputError(
            Reason.INVALID_ARGUMENT, f"precision {request.precision!r}: use one of {', '.join(Precision)}"
        )
    check(component, options)
    if component in APPLIES["family"]:
        layout.check_family(request.source.manifest.extra["pipelineClass"], options.family)
    folders = _source_folders(store, request)
    loras = [_source_folder(store.get(Kind.SOURCE, item.source), parts.LORA) for item in options.loras]
    main = MAIN_PART[component]
    tools = {name: version(name) for name in ("torch", "diffusers", "transformers", "onnx", "onnxruntime")}
    inputs: dict[str, Any] = {
        "version": [_EXPORT_VERSION, CONTRACT_VERSION],
        "component": str(component),
        # The component's own digest, not the checkpoint's: another UNet leaves the text encoder's graph alone.
        "content": folders[main].content if main else None,
        "precision": request.precision,
        "opset": OPSET,
        "tools": tools,
    }
    material = LoadContext(
        {name: part.folder for name, part in folders.items()},
        options,
        tuple(LoraWeights(part.folder, item.weight) for part, item in zip(loras, options.loras, strict=True)),
        _shape_facts(store, request),
    )
    if shape_facts := sizes.required_facts(component, material.sizes):
        inputs["sizes"] = shape_facts
    if choices := options.non_defaults(without={"shape_sources"}):
        inputs |= {"options": choices, "contents": {name: part.content for name, part in folders.items()}}
        inputs["loras"] = [part.content for part in loras]
    if loras:
        inputs["merge"] = _MERGE_VERSION

    def write(folder: Path) -> Mapping[str, Any]:
        return _export(material, component, Precision(request.precision), folder, on_phase)

    source_artifacts = {part.source.manifest.digest: part.source for part in (*folders.values(), *loras)}
    recipe = Recipe(
        Kind.ONNX,
        inputs,
        tools,
        required_bytes=_needed_bytes(material, component, Precision(request.precision)),
        derived_from=tuple(source_artifacts.values()),
    )
    return store.publish(recipe, write)


def _needed_bytes(material: LoadContext, component: Component, precision: Precision) -> int:
    """Bytes written for each weight, whatever type it has in the source."""
    main = MAIN_PART[component]
    if main is None or component is Component.ZERO_RESIDUALS:
        return 0
    return _WRITTEN[precision] * sum(_elements(path) for path in material.folders[main].glob("*.safetensors"))


def _elements(path: Path) -> int:
    """Numbers in a safetensors file, by its header: 8 bytes of length, then JSON."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _source_folders(store: Store, request: ExportRequest) -> dict[str, _SourceFolder]:
    """The folders that a component is made of, from the checkpoint and from the sources that the options name."""
    source, options = request.source, request.options
    folders = {}
    if options.ip_adapter:
        adapter = store.get(Kind.SOURCE, options.ip_adapter)
        folders[parts.IP_ADAPTER] = _source_folder(adapter, parts.IP_ADAPTER)
        if options.image_encoder:
            folders[parts.IMAGE_ENCODER] = _source_folder(
                store.get(Kind.SOURCE, options.image_encoder), parts.IMAGE_ENCODER
            )
        # Else it comes with the adapter, or with the checkpoint; the component says when there is none.
        for artifact in (adapter, source):
            if parts.IMAGE_ENCODER in artifact.manifest.extra["subfolders"]:
                folders.setdefault(parts.IMAGE_ENCODER, _source_folder(artifact, parts.IMAGE_ENCODER))
    if options.control_net:
        folders[parts.CONTROLNET] = _source_folder(store.get(Kind.SOURCE, options.control_net), parts.CONTROLNET)
        # The one that it is served with comes first, whatever lies in the sources of other sizes.
        own = parts.UNET in source.manifest.extra["subfolders"]
        folders[parts.UNET] = _source_folder(
            source if own else _source_with(store, request, parts.UNET) or source, parts.UNET
        )
    main = MAIN_PART[request.component]
    if main is not None and main not in folders:
        folders[main] = _source_folder(source, main)
    return folders


def _source_with(store: Store, request: ExportRequest, part: str) -> Artifact | None:
    """The source that has a part: one of those that the options name, else the component's own."""
    for digest in request.options.shape_sources:
        artifact = store.get(Kind.SOURCE, digest)
        if part in artifact.manifest.extra["subfolders"]:
            return artifact
    return request.source if part in request.source.manifest.extra["subfolders"] else None


def _shape_facts(store: Store, request: ExportRequest) -> Mapping[str, int]:
    """Sizes that other components decide, as far as the sources tell."""
    if request.component not in SHAPED:
        return {}
    holders = {part: _source_with(store, request, part) for part in sizes.SUBFOLDERS}
    return sizes.read_shape_facts({part: holder.path / part for part, holder in holders.items() if holder})


def _source_folder(source: Artifact, name: str) -> _SourceFolder:
    available = source.manifest.extra["subfolders"]
    if name not in available:
        raise BadInputError(
            Reason.MISSING_COMPONENT,
            f"the source {source.manifest.digest} has no {name}; it has: {', '.join(sorted(available))}",
        )
    return _SourceFolder(source, name)


def _export(
    material: LoadContext, component: Component, requested_precision: Precision, target: Path, on_phase: OnPhase
) -> Mapping[str, Any]:
    from diffusion_builder.components.registry import COMPONENTS, Sizes
    from diffusion_builder.graphs import deviation, onnx_graph

    spec = COMPONENTS[component]
    with silence():
        on_phase("load")
        loaded = _load(spec, material, requested_precision)
        sizes.check_shape_facts(component, loaded.facts, material.sizes)
        interface, facts, precision = spec.interface(loaded.facts), dict(loaded.facts), loaded.precision
        on_phase("trace")
        # Odd sizes: UNets with even ones skip the code that resizes to the skip connection's size.
        onnx_graph.trace(component, interface, loaded, Sizes(2, 9, 11, 2, 2), target)
        on_phase("reference")
        cases = deviation.reference_cases(interface, loaded, (Sizes(1, 8, 8), Sizes(3, 16, 12, 3, 3)))
        # From here on the weights are needed once, in ONNX Runtime.
        del loaded
        on_phase("parity")
        measured = _check_graph_parity(component, interface, target, precision, cases)
    facts |= sizes.required_facts(component, material.sizes)
    content = {name: digests.file_digest(target / name) for name in (MODEL, WEIGHTS) if (target / name).exists()}
    return {
        "component": str(component),
        # Facts too: profiles follow from them, so the same graph with others is another engine.
        "content": digests.json_digest({"files": content, "facts": facts}),
        "facts": facts,
        "precision": str(precision),
        "maxAbsError": measured.absolute,
        "maxRelativeError": measured.relative,
    }


def _check_graph_parity(
    component: Component, interface: Interface, target: Path, precision: Precision, cases: Sequence[Case]
) -> Deviation:
    from diffusion_builder.graphs import deviation

    with tempfile.TemporaryDirectory(dir=target, prefix=".twin-") as scratch:
        folder = target
        if precision is Precision.BFLOAT16:
            folder = Path(scratch)
            deviation.widen_to_float32(target, folder)
        deviation.validate_graph(component, folder)
        measured = deviation.measure(component, interface, folder, cases)
    deviation.require_tolerance(component, measured, precision)
    return measured


def _load(spec: ComponentSpec, material: LoadContext, precision: Precision) -> LoadedModule:
    from diffusion_builder.graphs.onnx_graph import first_line

    try:
        return spec.load(material, precision)
    except (OSError, ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError) as error:
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{spec.component} cannot be loaded: {first_line(error)}. Do config.json and weights belong together?",
        ) from error
