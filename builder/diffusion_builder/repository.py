"""The assemble stage: engines and schedules → a Triton model repository in the store.

The repository is self-contained: configuration, Python models as files, tokenizer and tables; engines are
relative links inside the store, so that a tier more costs kilobytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_builder import contract, digests, tokens, unroll
from diffusion_builder.contract import CONTRACT_VERSION, Component, Facts
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.graph import check
from diffusion_builder.models.schedule import Schedule, SchedulerSettings, schedule
from diffusion_builder.render import Renderer
from diffusion_builder.sources import read_json
from diffusion_builder.store import MANIFEST, Artifact, Kind, Recipe, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusion_builder.spec import AssembleSpec

PACKAGE = Path(__file__).parent
_MODELS = PACKAGE / "models"
_TEMPLATES = PACKAGE / "templates"
_VERSION = "1"

# Files of `models/` that each Triton model consists of; the first one becomes model.py.
_PYTHON = {
    contract.TOKENIZER_NAME: ("tokenizer.py", "triton_io.py"),
    contract.CONDITIONER_NAME: ("conditioner.py", "triton_io.py", "conditions.py", "noise.py"),
    contract.POSTPROCESSOR_NAME: (
        "postprocessor.py", "triton_io.py", "pixels.py", "finish.py", "colors.py", "pictures.py", "inputs.py",
    ),
}  # fmt: skip
_ONNX_RUNTIME = ("onnx_engine.py", "triton_io.py", "cpus.py")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a repository is put together from."""

    spec: AssembleSpec
    source: Artifact
    engines: Mapping[Component, Artifact]
    facts: Facts
    schedules: Mapping[int, Schedule]


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
    parts = _parts(store, spec)
    content = parts.source.manifest.extra["components"]
    inputs = {
        "version": CONTRACT_VERSION,
        "code": _code_digest(),
        "spec": spec.model_dump(mode="json", exclude={"source"}),
        # Only these parts of the checkpoint are in the repository; its weights are in the engines.
        "tokenizer": content["tokenizer"],
        "scheduler": content["scheduler"],
    }
    tools = {name: version(name) for name in ("jinja2", "tokenizers")}
    recipe = Recipe(Kind.REPOSITORY, inputs, tools, made_from=(parts.source, *parts.engines.values()))
    return store.publish(recipe, lambda folder: _write(parts, folder))


def _parts(store: Store, spec: AssembleSpec) -> Parts:
    source = store.get(Kind.SOURCE, spec.source)
    engines = {component: store.get(Kind.ENGINE, digest) for component, digest in spec.engines.items()}
    for component, engine in engines.items():
        if engine.manifest.extra["component"] != component:
            raise BadInputError(
                Reason.COMPONENT_MISMATCH, f"engine {spec.engines[component]} is not a {component}, but a "
                f"{engine.manifest.extra['component']}",
            )  # fmt: skip
    config = read_json(source.path, "scheduler/scheduler_config.json")
    settings = SchedulerSettings.from_config(spec.scheduler.type, config, spec.scheduler.overrides())
    tiers = sorted({steps for pipeline in spec.pipelines for steps in pipeline.steps})
    schedules = {steps: schedule(settings, steps) for steps in tiers}
    known = {str(component): engine.manifest.extra["facts"] for component, engine in engines.items()}
    known["scheduler"] = {"slots": schedules[tiers[0]].slots}
    try:
        facts = Facts.merge(known)
    except ValueError as error:
        raise BadInputError(Reason.COMPONENT_MISMATCH, f"components do not fit each other: {error}") from error
    return Parts(spec, source, engines, facts, schedules)


def _code_digest() -> str:
    """Digest of everything of ours that ends up in a repository or decides what does."""
    parts = (_MODELS.glob("*.py"), _TEMPLATES.glob("*.j2"), (PACKAGE / "schedule").glob("*.py"), PACKAGE.glob("*.py"))
    files = sorted(path for part in parts for path in part)
    names = {"contract.py", "graph.py", "unroll.py", "repository.py", "render.py", "tokens.py"}
    return digests.of_json(
        {str(path.relative_to(PACKAGE)): digests.of_file(path) for path in files
         if path.parent != PACKAGE or path.name in names}
    )  # fmt: skip


def _write(parts: Parts, folder: Path) -> Mapping[str, Any]:
    root = folder / "models"
    tiers = tuple(parts.schedules)
    models = unroll.models(parts.facts, tiers)
    renderer = Renderer(_TEMPLATES, parts.spec.shapes.batch.max, parts.spec.batching)
    for component, engine in parts.engines.items():
        model = models.engines[component]
        _python_model(root, model.name, _ONNX_RUNTIME, renderer.engine(model))
        _link_engine(root / model.name / _VERSION, engine)
    for model in (models.tokenizer, models.conditioner, models.postprocessor):
        _python_model(root, model.name, _PYTHON[model.name], renderer.python(model))
    _write_tokenizer(parts, root / contract.TOKENIZER_NAME / _VERSION)
    _write_schedules(parts, root / contract.CONDITIONER_NAME / _VERSION)
    names = []
    for pipeline in parts.spec.pipelines:
        for steps in pipeline.steps:
            tier = unroll.Tier(pipeline.task, steps, parts.schedules[steps].calls)
            ensemble = unroll.ensemble(tier, models, parts.facts)
            check(ensemble)
            # Triton wants a version folder even where nothing is in it; git and object stores drop empty ones.
            _put(root / ensemble.name / _VERSION / ".keep", "")
            _put(root / ensemble.name / "config.pbtxt", renderer.ensemble(ensemble))
            names.append(ensemble.name)
    shapes = parts.spec.shapes.model_dump()
    return {"ensembles": names, "stateSlots": parts.facts.slots, "shapes": shapes}


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _python_model(root: Path, name: str, files: tuple[str, ...], config: str) -> None:
    _put(root / name / "config.pbtxt", config)
    target = root / name / _VERSION
    target.mkdir()
    shutil.copyfile(_MODELS / files[0], target / "model.py")
    for file in files[1:]:
        shutil.copyfile(_MODELS / file, target / file)


def _link_engine(target: Path, engine: Artifact) -> None:
    """Link every file of an engine, by a path that is right wherever the store is mounted."""
    # repositories/<digest>/models/<model>/1/<file>: five folders below the store.
    up = Path(*[os.pardir] * 5)
    for name in engine.manifest.files:
        if name != MANIFEST:
            (target / name).symlink_to(up / Kind.ENGINE / engine.manifest.digest / name)


def _write_tokenizer(parts: Parts, target: Path) -> None:
    tokenizer = tokens.load(parts.source.path / "tokenizer")
    length = tokens.length(tokenizer)
    if length != parts.facts.text_length:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"the tokenizer makes {length} tokens, the text encoder reads {parts.facts.text_length}: "
            "model_max_length and max_position_embeddings must be equal",
        )
    _put(target / "tokenizer.json", tokenizer.to_str(pretty=True))


def _write_schedules(parts: Parts, target: Path) -> None:
    tiers = {
        str(steps): {
            "table": plan.table[: plan.calls].tolist(),
            "timesteps": plan.timesteps[: plan.calls].tolist(),
            "initialScale": plan.initial_scale,
            "inputScale": plan.input_scale,
        }
        for steps, plan in parts.schedules.items()
    }
    body = {
        "rows": contract.MAX_STEPS,
        "channels": parts.facts.channels,
        "pixelsPerLatent": parts.facts.pixels_per_latent,
        "height": parts.spec.shapes.height.model_dump(),
        "width": parts.spec.shapes.width.model_dump(),
        "scheduler": str(parts.spec.scheduler.type),
        "tiers": tiers,
    }
    _put(target / "schedules.json", json.dumps(body, indent=1) + "\n")
