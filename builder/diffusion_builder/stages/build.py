"""All stages one after the other, for one target: what `diffusion-builder build` does.

What configurations can tell is validated before the first export: that is what takes long.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from diffusion_builder.components import parts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.parity import preconditions
from diffusion_builder.repository import tiers
from diffusion_builder.sources import layout
from diffusion_builder.stages import preflight
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind
from diffusion_contract.assembly import EnsembleSpec, assembly
from diffusion_contract.engines import CHECKPOINT, engines, sources
from diffusion_contract.enums import Component, ModelFamily
from diffusion_contract.spec.local import LocalSource
from diffusion_contract.subfolders import PREVIEW_VAE, REFINER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.stages.run import Result, StageContext
    from diffusion_contract.engines import EngineSpec, SourceRef
    from diffusion_contract.spec import DiffusionPipelineSpec, Target


def build(
    context: StageContext, spec: DiffusionPipelineSpec, target: str | None = None, *, parity: bool = True
) -> Sequence[Result]:
    """Run all stages; what is in the store is not made again.

    Args:
        context: the store, and where progress goes.
        spec: what is made.
        target: its name, where the spec has several.
        parity: whether the repository is compared with diffusers at the end.

    Returns:
        The results of all stages in their order; that of `assemble` is the last one, or with parity the one before.

    Raises:
        BuilderError: as in the stages.
    """
    build_ = _Build(context, spec, choose_target(spec, target))
    digests = build_.fetch()
    _validate(context, spec, digests, parity=parity)
    compiled = {engine.name: build_.engine(engine, digests) for engine in engines(spec)}
    repository = build_.assemble(digests[CHECKPOINT], compiled)
    if parity:
        build_.results.append(stages.parity(context, repository))
    return build_.results


def choose_target(spec: DiffusionPipelineSpec, name: str | None) -> Target:
    """The target that is built for.

    Args:
        spec: with one target or several.
        name: of the target, or None where there is only one.

    Raises:
        BadInputError: there is none of that name, several to choose from, or its GPU product cannot exist.
    """
    targets = [target for target in spec.targets if name in (None, target.name)]
    if len(targets) != 1:
        names = ", ".join(target.name for target in spec.targets)
        raise BadInputError(Reason.INVALID_SPEC, f"choose one target with --target; the spec has: {names}")
    if targets[0].gpu is not None:
        from diffusion_builder.engines.tensorrt import sku

        sku.validate_product(targets[0].sku)
    return targets[0]


@dataclass(frozen=True)
class _Build:
    """The stages of one build, and their results so far."""

    context: StageContext
    spec: DiffusionPipelineSpec
    target: Target
    results: list[Result] = field(default_factory=list)

    def fetch(self) -> dict[str, str]:
        """Bring all sources into the store; digests by the names of the sources."""
        origins = {ref.name: _origin(ref) for ref in sources(self.spec.model)}
        return {name: self._fetch(origin) for name, origin in origins.items()}

    def _fetch(self, origin: stages.FetchArguments | str) -> str:
        if isinstance(origin, str):
            return str(self.context.store.get(Kind.SOURCE, origin).manifest.digest)
        return self._digest(stages.fetch(self.context, origin))

    def engine(self, engine: EngineSpec, digests: Mapping[str, str]) -> str:
        """Export and compile one component; the engine's digest."""
        options = json.dumps(engine.options(digests.__getitem__))
        source = digests[engine.source]
        onnx = self._digest(stages.export(self.context, source, engine.component, engine.precision, options))
        tuning = self.spec.engines.model_dump(include={"optimization_level", "workspace"}, exclude_none=True)
        shapes = self.spec.shapes.model_dump_json()
        request = stages.CompileArguments(onnx, self.target.runtime, self.target.sku, shapes, **tuning)
        return self._digest(stages.compile_(self.context, request))

    def assemble(self, checkpoint: str, compiled: Mapping[str, str]) -> str:
        """Make the repository; its digest."""
        spec = assembly(self.spec, self.target.runtime, checkpoint, compiled)
        return self._digest(stages.assemble(self.context, spec.text()))

    def _digest(self, result: Result) -> str:
        self.results.append(result)
        return str(result["digest"])


def _origin(ref: SourceRef) -> stages.FetchArguments | str:
    """What is fetched, or the digest of a source that is in the store already."""
    source, hub, archive = ref.source, ref.source.hugging_face, ref.source.archive
    origin = stages.FetchArguments(
        component=ref.component, file=ref.file, subfolder=source.subfolder, variant=source.variant
    )
    if isinstance(source, LocalSource) and source.digest is not None:
        return source.digest
    if isinstance(source, LocalSource) and source.path is not None:
        return replace(origin, path=source.path)
    if hub is not None:
        return replace(origin, repo=hub.repo, revision=hub.revision)
    if archive is not None:
        return replace(origin, url=archive.url, sha256=archive.sha256)
    raise BadInputError(
        Reason.INVALID_SPEC,
        f"source of {ref.name}: a persistentVolumeClaim exists only inside of Kubernetes: give path, the folder that "
        "it is mounted at",
    )


def _validate(context: StageContext, spec: DiffusionPipelineSpec, digests: Mapping[str, str], *, parity: bool) -> None:
    def has(source: str, subfolder: str) -> bool:
        artifact = context.store.get(Kind.SOURCE, digests[source])
        return subfolder in artifact.manifest.extra["subfolders"]

    def folder(source: str, subfolder: str) -> Path:
        if not has(source, subfolder):
            raise BadInputError(Reason.MISSING_COMPONENT, f"the source {digests[source]} has no {subfolder}")
        return context.store.get(Kind.SOURCE, digests[source]).path / subfolder

    family = spec.model.family or ModelFamily.STABLE_DIFFUSION
    layout.check_family(context.store.get(Kind.SOURCE, digests[CHECKPOINT]).manifest.extra["pipelineClass"], family)
    candidates = [name for name in (parts.IMAGE_ENCODER, parts.IP_ADAPTER, CHECKPOINT) if name in digests]
    if parts.IP_ADAPTER in digests and not any(has(name, parts.IMAGE_ENCODER) for name in candidates):
        raise BadInputError(
            Reason.MISSING_COMPONENT,
            "ipAdapter: neither its source nor the checkpoint has an image_encoder; put that folder beside its file, "
            "or name it: ipAdapter.imageEncoder",
        )
    models = {
        subfolder: folder(source, subfolder)
        for engine in engines(spec)
        for subfolder, source in engine.contents
        if subfolder in {parts.TEXT_ENCODER, parts.TEXT_ENCODER_2, parts.UNET, parts.VAE}
        and engine.component not in (Component.PREVIEW_DECODER, Component.REFINER)
    }
    if REFINER in digests:
        preflight.validate_refiner(folder(REFINER, parts.UNET), models)
    if PREVIEW_VAE in digests:
        preflight.validate_preview_vae(folder(PREVIEW_VAE, parts.VAE), models[parts.VAE])
    nets = [ref for ref in sources(spec.model) if ref.component == parts.CONTROLNET]
    preflight.validate_models(models, {ref.name: folder(ref.name, parts.CONTROLNET) for ref in nets}, family)
    preflight.validate_acceleration(models[parts.UNET], spec.acceleration)
    ensembles = [EnsembleSpec.of(item) for item in spec.pipelines]
    checkpoint = folder(CHECKPOINT, "scheduler").parent
    tiers.validated_schedulers(checkpoint, spec.all_schedulers, ensembles, family, spec.model.denoising_start)
    if parity:
        tasks = {item.task for item in spec.pipelines}
        controlled = {item.task for item in spec.pipelines if parts.CONTROLNET in (item.features or ())}
        preconditions.require_comparable(
            models, tasks, ip_adapter=spec.serves(parts.IP_ADAPTER), controlled_tasks=controlled
        )
