"""What a repository was made from, as the manifests say: the same parts are given to diffusers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffusion_builder.components import parts
from diffusion_builder.components.parts import MAIN_PART, LoraWeights
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.store import Artifact, Kind, Store
from diffusion_contract.enums import Component, ModelFamily
from diffusion_contract.exports import ExportOptions
from diffusion_contract.spec import Acceleration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# Not of the checkpoint's folder of that name, or without weights: zero residuals are the same for denoisers of one
# form, and so is their engine, which may have been made for another denoiser.
_WITHOUT_FOLDER = (Component.CONTROLNET, Component.PREVIEW_DECODER, Component.REFINER, Component.ZERO_RESIDUALS)


@dataclass(frozen=True)
class Provenance:
    """Parts of a repository.

    Args:
        checkpoint: folder with tokenizer/ and scheduler/.
        folders: of text_encoder, unet, vae and, where there are such, text_encoder_2, image_encoder and
            safety_checker.
        control_nets: folders by name.
        ip_adapter: folder with its file, or None.
        loras: in order.
        clip_skip: layers that are left out.
        text: tokens per prompt, features per token, and features of a whole prompt's embedding or 0.
        schedulers: as in the repository's specification, the default one first.
        precisions: of all graphs.
        acceleration: of all ensembles.
        long_prompts: whether prompts may have several windows.
        refiner: folder of the refiner's UNet, or None.
        denoising_start: fraction of the denoising after which it takes over.
    """

    checkpoint: Path
    folders: Mapping[str, Path]
    control_nets: Mapping[str, Path]
    ip_adapter: Path | None
    loras: tuple[LoraWeights, ...]
    clip_skip: int
    text: tuple[int, int, int]
    schedulers: Sequence[Mapping[str, Any]]
    precisions: frozenset[str] = field(default_factory=frozenset)
    acceleration: Acceleration | None = None
    long_prompts: bool = False
    refiner: Path | None = None
    denoising_start: float | None = None

    @property
    def family(self) -> ModelFamily:
        """Architecture of the checkpoint."""
        is_xl = parts.TEXT_ENCODER_2 in self.folders
        return ModelFamily.STABLE_DIFFUSION_XL if is_xl else ModelFamily.STABLE_DIFFUSION


def trace_provenance(store: Store, repository: Artifact) -> Provenance:
    """Follow the manifests from a repository to its sources.

    Raises:
        BadInputError: something that it was made from is gone from the store.
    """
    spec = repository.manifest.inputs["spec"]
    nets = {one["name"]: source_graph(store, one["engine"]) for one in spec["control_nets"]}
    graphs = {name: source_graph(store, digest) for name, digest in spec["engines"].items()}
    options = {
        name: ExportOptions.model_validate(graph.manifest.inputs.get("options", {})) for name, graph in graphs.items()
    }
    denoiser = options[Component.DENOISER]
    folders = {part: folder for graph in graphs.values() for part, folder in _folders(store, graph)}
    control = {name: _weights_folder(store, graph) for name, graph in nets.items()}
    last_encoder = graphs.get(Component.TEXT_ENCODER_2, graphs[Component.TEXT_ENCODER])
    facts = last_encoder.manifest.extra["facts"]
    adapter = _source(store, denoiser.ip_adapter) if denoiser.ip_adapter else None
    return Provenance(
        _source_with(store, repository, "tokenizer"),
        folders,
        control,
        adapter / parts.IP_ADAPTER if adapter else None,
        tuple(LoraWeights(_source(store, item.source) / parts.LORA, item.weight) for item in denoiser.loras),
        options[Component.TEXT_ENCODER].clip_skip,
        (facts["text_length"], facts["text_width"], facts.get("pooled_width", 0)),
        spec["schedulers"],
        frozenset(str(graph.manifest.extra["precision"]) for graph in (*graphs.values(), *nets.values())),
        Acceleration.model_validate(spec["acceleration"]) if spec.get("acceleration") else None,
        options[Component.TEXT_ENCODER].long_prompts,
        _weights_folder(store, graphs[Component.REFINER]) if Component.REFINER in graphs else None,
        spec.get("denoising_start"),
    )


def source_graph(store: Store, engine: str) -> Artifact:
    """The exported graph that an engine was made from.

    Raises:
        BadInputError: it is gone from the store.
    """
    return next(_sources_of(store, store.get(Kind.ENGINE, engine), Kind.ONNX))


def _folders(store: Store, graph: Artifact) -> Iterator[tuple[str, Path]]:
    component = Component(graph.manifest.extra["component"])
    part = MAIN_PART[component]
    if part is not None and component not in _WITHOUT_FOLDER:
        yield part, _weights_folder(store, graph)


def _weights_folder(store: Store, graph: Artifact) -> Path:
    """The folder with a graph's weights: of all sources, the one with the content that the graph is named by."""
    part = str(MAIN_PART[Component(graph.manifest.extra["component"])])
    return _source_with(store, graph, part, graph.manifest.inputs["content"]) / part


def _source_with(store: Store, artifact: Artifact, subfolder: str, content: str | None = None) -> Path:
    """The source of an artifact that has this subfolder, with this content where it is given."""
    for source in _sources_of(store, artifact, Kind.SOURCE):
        present = source.manifest.extra["subfolders"].get(subfolder)
        if present is not None and content in (None, present):
            return source.path
    raise _missing_error(artifact)


def _source(store: Store, digest: str) -> Path:
    return store.get(Kind.SOURCE, digest).path


def _sources_of(store: Store, artifact: Artifact, kind: Kind) -> Iterator[Artifact]:
    digests = [digest for digest in artifact.manifest.derived_from if store.find(kind, digest) is not None]
    if not digests:
        raise _missing_error(artifact)
    yield from (store.get(kind, digest) for digest in digests)


def _missing_error(artifact: Artifact) -> BadInputError:
    return BadInputError(
        Reason.ARTIFACT_NOT_FOUND,
        f"what {artifact.manifest.kind}/{artifact.manifest.digest} was made from is gone from the store: build again",
    )
