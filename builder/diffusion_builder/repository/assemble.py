"""The assemble stage: engines and schedules → a Triton model repository in the store.

The repository is self-contained: configuration, Python models as files, tokenizer and tables; engines are
relative links inside the store, so that a tier more costs kilobytes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder import digests
from diffusion_builder.engines.tensorrt.build import PLAN
from diffusion_builder.engines.tensorrt.profiles import optimization_profiles
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository import model_files as settings
from diffusion_builder.repository import server_requirements as serving
from diffusion_builder.repository import unroll
from diffusion_builder.repository.graph import validate_ensemble
from diffusion_builder.repository.render import PlanFile, Renderer
from diffusion_builder.repository.smoke_requests import smoke_request
from diffusion_builder.repository.tiers import tiers, validated_schedulers
from diffusion_builder.repository.unroll import check_engines
from diffusion_builder.sources import read_json, tokens
from diffusion_builder.store import MANIFEST, Artifact, Kind, Recipe, Store
from diffusion_contract import enums, model_facts, python_models, tensors
from diffusion_contract.enums import LOOP_DENOISERS, SHALLOW_DENOISERS, Component, ModelFamily
from diffusion_contract.model_facts import ModelFacts
from diffusion_contract.spec import acceleration
from diffusion_contract.tensors import CONTRACT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusion_builder.repository.graph import TritonModel
    from diffusion_builder.repository.tiers import NamedScheduler
    from diffusion_builder.repository.unroll import Tier
    from diffusion_contract.assembly import AssembleSpec

PACKAGE = Path(__file__).parents[1]
_MODELS = PACKAGE / "models"
_TEMPLATES = PACKAGE / "templates"
_VERSION = "1"

# The contract's files that every Python model imports, in the place of the builder's modules of the same names.
_CONTRACT = {
    Path(module.__file__ or "").name: Path(module.__file__ or "") for module in (enums, tensors, python_models)
}
_SHARED = ("triton_io.py", "errors.py", "request_inputs.py", *_CONTRACT)
# Files of `models/` that each Triton model consists of; the first one becomes model.py. A folder comes as it is.
_PYTHON = {
    python_models.TOKENIZER_NAME: (
        "tokenizer.py", *_SHARED, "prompt_tokens.py", "weighted_text.py", "a1111_syntax.py", "compel_syntax.py",
    ),
    python_models.PREPROCESSOR_NAME: (
        "preprocessor.py", *_SHARED, "preprocess.py", "images.py", "masks.py", "postprocess_numbers.py",
    ),
    python_models.CONDITIONER_NAME: (
        "conditioner.py", *_SHARED, "conditioner_config.py", "conditioning.py", "guidance_inputs.py",
        "initial_latents.py", "noise.py", "postprocess_numbers.py", "schedule", "size_inputs.py",
    ),
    python_models.POSTPROCESSOR_NAME: (
        "postprocessor.py", *_SHARED, "colors.py", "images.py", "postprocess.py", "postprocess_numbers.py",
    ),
}  # fmt: skip
_ONNX_RUNTIME = ("onnx_engine.py", "triton_io.py", "errors.py", "cpus.py")


@dataclasses.dataclass(frozen=True)
class RepositoryInputs:
    """Inputs of a repository."""

    spec: AssembleSpec
    source: Artifact
    engines: Mapping[str, Artifact]
    facts: ModelFacts
    schedulers: Sequence[NamedScheduler]
    tiers: Sequence[Tier]

    @property
    def control_nets(self) -> tuple[str, ...]:
        """Their names, in the order in which the denoiser reads them."""
        return tuple(one.name for one in self.spec.control_nets)


def assemble(store: Store, spec: AssembleSpec) -> tuple[Artifact, bool]:
    """Assemble a repository.

    Args:
        store: where source and engines are and the repository goes.
        spec: what to assemble.

    Returns:
        The repository artifact, and whether it was in the store already.

    Raises:
        BadInputError: an artifact is missing, or components do not fit each other.
        StoreError: the store is not as it should be.
    """
    parts = _resolve_inputs(store, spec)
    content = parts.source.manifest.extra["subfolders"]
    inputs = {
        "version": CONTRACT_VERSION,
        "code": _code_digest(),
        "spec": spec.model_dump(mode="json", exclude={"source"}),
        # Only these parts of the checkpoint are in the repository; its weights are in the engines.
        "tokenizer": content["tokenizer"],
        "scheduler": content["scheduler"],
    }
    if _has_two_tokenizers(parts.facts):
        inputs |= {"tokenizer_2": content["tokenizer_2"]}
    if config := _tokenizer_config(parts):
        inputs |= {"tokenizers": config}
    tools = {name: version(name) for name in ("jinja2", "tokenizers", "transformers")}
    recipe = Recipe(Kind.REPOSITORY, inputs, tools, derived_from=(parts.source, *parts.engines.values()))
    return store.publish(recipe, lambda folder: _write(parts, folder))


def _resolve_inputs(store: Store, spec: AssembleSpec) -> RepositoryInputs:
    source = store.get(Kind.SOURCE, spec.source)
    engines = {
        tensors.MODEL_NAMES[component]: _engine(store, spec.runtime, component, digest)
        for component, digest in spec.engines.items()
    }
    for one in spec.control_nets:
        engines[python_models.control_model(one.name)] = _engine(store, spec.runtime, Component.CONTROLNET, one.engine)
    is_xl = Component.TEXT_ENCODER_2 in spec.engines
    family = ModelFamily.STABLE_DIFFUSION_XL if is_xl else ModelFamily.STABLE_DIFFUSION
    schedulers, state_slots = validated_schedulers(
        source.path, spec.schedulers, spec.pipelines, family, spec.denoising_start
    )
    facts = _facts(engines, state_slots)
    if Component.REFINER in spec.engines:
        _check_refiner_text(engines)
    requested_tiers = tiers(spec, schedulers)
    check_engines(requested_tiers, facts, spec.engines.keys(), tuple(one.name for one in spec.control_nets))
    return RepositoryInputs(spec, source, engines, facts, schedulers, requested_tiers)


def _engine(store: Store, runtime: str, component: Component, digest: str) -> Artifact:
    engine = store.get(Kind.ENGINE, digest)
    actual_component = engine.manifest.extra["component"]
    if actual_component != component:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH, f"engine {digest} is not a {component}, but a {actual_component}"
        )
    engine_runtime = engine.manifest.extra["runtime"]
    if engine_runtime != runtime:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"engine {digest} ({component}) is for {engine_runtime}, the repository for {runtime}",
        )
    return engine


def _facts(engines: Mapping[str, Artifact], state_slots: int) -> ModelFacts:
    facts_by_component = {name: engine.manifest.extra["facts"] for name, engine in engines.items()}
    facts_by_component["scheduler"] = {"slots": state_slots}
    try:
        return ModelFacts.merge(facts_by_component)
    except ValueError as error:
        raise BadInputError(Reason.COMPONENT_MISMATCH, f"components do not fit each other: {error}") from error


def _check_refiner_text(engines: Mapping[str, Artifact]) -> None:
    encoder = engines.get(tensors.MODEL_NAMES[Component.TEXT_ENCODER_2])
    if encoder is None or tensors.REFINER_TRAIT not in encoder.manifest.extra["facts"]:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            "the refiner reads texts of text_encoder_2: export that with the option refiner",
        )


def code_files() -> Mapping[str, Path]:
    """Everything of ours that ends up in a repository or decides what does, by its path below the sources."""
    modules = (Path(module.__file__ or "") for module in (acceleration, model_facts))
    alone = (*_CONTRACT.values(), *modules, PACKAGE / "sources/tokens.py", PACKAGE / "engines/tensorrt/profiles.py")
    files = (*_MODELS.rglob("*.py"), *_TEMPLATES.glob("*.j2"), *Path(__file__).parent.rglob("*.py"), *alone)
    return {f"{path.parent.name}/{path.name}": path for path in sorted(files)}


def _code_digest() -> str:
    return digests.json_digest({name: digests.file_digest(path) for name, path in code_files().items()})


def _write(parts: RepositoryInputs, folder: Path) -> Mapping[str, Any]:
    root = folder / "models"
    models = unroll.models(parts.facts, parts.spec.engines, parts.control_nets, parts.tiers)
    ensembles = [unroll.ensemble(tier, models) for tier in parts.tiers]
    json_ensembles = [
        unroll.json_ensemble(tier, ensemble) for tier, ensemble in zip(parts.tiers, ensembles, strict=True)
    ]
    for ensemble in (*ensembles, *json_ensembles):
        validate_ensemble(ensemble)
    calls = Counter(tensors.MODEL_NAMES[variant] for tier in parts.tiers for variant in tier.denoisers)
    renderer = Renderer(_TEMPLATES, parts.spec.shapes.batch.max, parts.spec.batching, calls, parts.spec.cuda)
    used = {step.model.name: step.model for ensemble in ensembles for step in ensemble.steps}
    for model in used.values():
        _write_model(parts, root, renderer, model)
    for ensemble in (*ensembles, *json_ensembles):
        # Triton wants a version folder even where nothing is in it; git and object stores drop empty ones.
        _write_text(root / ensemble.name / _VERSION / ".keep", "")
        _write_text(root / ensemble.name / "config.pbtxt", renderer.ensemble(ensemble))
    return {
        "ensembles": [ensemble.name for ensemble in ensembles],
        "stateSlots": parts.facts.slots,
        "shapes": parts.spec.shapes.model_dump(),
        "serverFlags": list(serving.server_flags(parts.spec.runtime, parts.facts, parts.spec.shapes, parts.spec.cuda)),
        "estimatedGPUMemoryBytes": serving.gpu_memory_bytes(
            parts.spec.runtime, _memory(parts), parts.facts, parts.spec.shapes
        ),
        "requests": {ensemble.name: smoke_request(ensemble, parts.facts, parts.spec.shapes) for ensemble in ensembles},
    }


# Components whose CUDA graphs take memory worth counting: those of the denoising loop with a thousand kernels.
_CAPTURED = {*LOOP_DENOISERS, Component.CONTROLNET} - SHALLOW_DENOISERS


def _memory(parts: RepositoryInputs) -> Iterator[serving.EngineMemory]:
    """Of all engines; two models may share one."""
    batch, cuda = parts.spec.shapes.batch, parts.spec.cuda
    graphs = len(serving.graph_batches(batch.min, batch.max)) if cuda and cuda.graphs else 0
    for engine in {engine.manifest.digest: engine for engine in parts.engines.values()}.values():
        extra = engine.manifest.extra
        component = Component(extra["component"])
        yield serving.EngineMemory(
            component, engine.manifest.size, extra.get("profiles", 1), tuple(extra.get("activationBytes", ())),
            graphs if component in _CAPTURED else 0,
        )  # fmt: skip


def _write_model(parts: RepositoryInputs, root: Path, renderer: Renderer, model: TritonModel) -> None:
    target = root / model.name / _VERSION
    if model.name in parts.engines:
        _write_engine(parts, root, renderer, model)
        return
    is_conditioner = model.name == python_models.CONDITIONER_NAME
    parameters = settings.conditioner_parameters(parts.spec.shapes) if is_conditioner else {}
    _python_model(root, model.name, _PYTHON[model.name], renderer.python(model, parameters))
    if model.name == python_models.TOKENIZER_NAME:
        _write_tokenizers(parts, target)
    if model.name == python_models.PREPROCESSOR_NAME:
        _write_text(
            target / "preprocessor.json",
            settings.preprocessor_config(parts.facts, parts.spec.shapes, parts.control_nets),
        )
    if is_conditioner:
        _write_text(
            target / "conditioner.json",
            settings.conditioner_config(
                parts.facts, parts.spec.shapes, parts.control_nets, parts.schedulers, parts.spec.denoising_start
            ),
        )


def _write_engine(parts: RepositoryInputs, root: Path, renderer: Renderer, model: TritonModel) -> None:
    engine = parts.engines[model.name]
    if parts.spec.runtime == "tensorrt":
        component, facts = Component(engine.manifest.extra["component"]), engine.manifest.extra["facts"]
        plan = PlanFile(PLAN, optimization_profiles(component, facts, parts.spec.shapes))
        _write_text(root / model.name / "config.pbtxt", renderer.engine(model, plan))
        (root / model.name / _VERSION).mkdir()
    else:
        _python_model(root, model.name, _ONNX_RUNTIME, renderer.engine(model))
    _link_engine(root / model.name / _VERSION, engine)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _python_model(root: Path, name: str, files: tuple[str, ...], config: str) -> None:
    _write_text(root / name / "config.pbtxt", config)
    target = root / name / _VERSION
    target.mkdir()
    shutil.copyfile(_MODELS / files[0], target / "model.py")
    for file in files[1:]:
        _copy(_CONTRACT.get(file, _MODELS / file), target / file)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)


def _link_engine(target: Path, engine: Artifact) -> None:
    """Link every file of an engine, by a path that is right wherever the store is mounted."""
    # repositories/<digest>/models/<model>/1/<file>: five folders below the store.
    up = Path(*[os.pardir] * 5)
    for name in engine.manifest.files:
        if name != MANIFEST:
            (target / name).symlink_to(up / Kind.ENGINE / engine.manifest.digest / name)


def _has_two_tokenizers(facts: ModelFacts) -> bool:
    return facts.pooled_width > 0


def _tokenizer_config(parts: RepositoryInputs) -> str:
    index = read_json(parts.source.path, "model_index.json") if _has_two_tokenizers(parts.facts) else {}
    return settings.tokenizer_config(parts.facts, index)


def _write_tokenizers(parts: RepositoryInputs, target: Path) -> None:
    facts = parts.facts
    _write_tokenizer(parts.source.path / "tokenizer", target / "tokenizer.json", facts, facts.vocabulary)
    if _has_two_tokenizers(facts):
        second = parts.source.path / "tokenizer_2"
        _write_tokenizer(second, target / "tokenizer_2.json", facts, facts.vocabulary_2)
    if config := _tokenizer_config(parts):
        _write_text(target / "tokenizers.json", config)


def _write_tokenizer(folder: Path, target: Path, facts: ModelFacts, vocabulary: int) -> None:
    tokenizer = tokens.load(folder)
    if vocabulary:
        tokens.check_embeddings(tokenizer, vocabulary)
    if facts.text_chunks or facts.prompt_weighting:
        tokens.check_windows(tokenizer)
    length = tokens.length(tokenizer)
    if length != facts.text_length:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the {folder.name} makes {length} tokens, the text encoder reads {facts.text_length}: "
            "model_max_length and max_position_embeddings must be equal",
        )
    _write_text(target, tokenizer.to_str(pretty=True))
