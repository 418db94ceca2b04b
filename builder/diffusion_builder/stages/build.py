"""All stages one after the other, for one target: what `diffusion-builder build` does.

What can be known without exporting anything is judged before the first export: that is what takes long.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_builder.build_spec import CPU, Source
from diffusion_builder.check import comparable
from diffusion_builder.components import parts
from diffusion_builder.components.around import NEEDED
from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.repository import tiers
from diffusion_builder.stages import preflight as early
from diffusion_builder.stages import run as stages
from diffusion_builder.store import Kind
from diffusion_contract import python_models
from diffusion_contract.tensors import TEXT_TO_IMAGE, Component

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from diffusion_builder.build_spec import BuildSpec, Target
    from diffusion_builder.stages.run import Context, Result

# What is read early, and the component that decides which source it is of.
_FOLDERS = {
    Component.TEXT_ENCODER: parts.TEXT_ENCODER,
    Component.DENOISER: parts.UNET,
    Component.VAE_DECODER: parts.VAE,
}


# What an override is called, where it is not as the component.
_OVERRIDES = {
    Component.VAE_ENCODER: "vae",
    Component.VAE_DECODER: "vae",
    Component.CONTROL_OFF: Component.DENOISER,
}


@dataclass(frozen=True)
class Fetched:
    """Digests of all sources.

    Args:
        base: the checkpoint.
        components: of those that come from elsewhere.
        loras: in order.
        control_nets: by name.
        ip_adapter: or None.
        image_encoder: of the IP-Adapter, where it is named; or None.
        safety_checker: or None.
    """

    base: str
    components: Mapping[str, str]
    loras: Sequence[str]
    control_nets: Mapping[str, str]
    ip_adapter: str | None
    image_encoder: str | None
    safety_checker: str | None

    def of(self, component: Component) -> str:
        """The source that a component is exported from."""
        if component is Component.SAFETY_CHECKER and self.safety_checker is not None:
            return self.safety_checker
        return self.components.get(_OVERRIDES.get(component, component), self.base)


@dataclass(frozen=True)
class Export:
    """One export: what it is called in a repository, and what of it is asked for."""

    name: str
    component: Component
    options: Mapping[str, Any]


def build(context: Context, spec: BuildSpec, target: str | None = None, *, checked: bool = True) -> Sequence[Result]:
    """Run all stages; what is in the store is not made again.

    Args:
        context: the store, and where progress goes.
        spec: what is made.
        target: its name, where the spec has several.
        checked: whether the repository is compared with diffusers at the end.

    Returns:
        The results of all stages in their order; that of `assemble` is the last one, or with a check the one before.

    Raises:
        BuilderError: as in the stages.
    """
    chosen = spec.only(target)
    _judge_target(chosen)
    results: list[Result] = []
    fetched = _fetch(context, spec, results)
    _judge(context, spec, fetched, checked=checked)
    engines: dict[str, str] = {}
    for item in exports(spec, fetched):
        engines[item.name] = _engine(context, spec, (chosen, fetched, item), results)
    results.append(stages.assemble(context, json.dumps(_assembly(spec, chosen, fetched, engines))))
    if checked:
        results.append(stages.check(context, str(results[-1]["digest"])))
    return results


def _judge_target(target: Target) -> None:
    if target.sku != CPU:
        from diffusion_builder.engines.tensorrt import sku

        sku.check_asked(target.sku)


def _judge(context: Context, spec: BuildSpec, fetched: Fetched, *, checked: bool) -> None:
    def folder(digest: str, part: str) -> Path:
        source = context.store.get(Kind.SOURCE, digest)
        if part not in source.manifest.extra["components"]:
            raise BadInputError(Reason.MISSING_COMPONENT, f"the source {digest} has no {part}")
        return source.path / part

    if fetched.ip_adapter and not any(
        parts.IMAGE_ENCODER in context.store.get(Kind.SOURCE, digest).manifest.extra["components"]
        for digest in (fetched.image_encoder or fetched.ip_adapter, fetched.base)
    ):
        raise BadInputError(
            Reason.MISSING_COMPONENT,
            "ipAdapter: neither its source nor the checkpoint has an image_encoder; put that folder beside its file, "
            "or name it: ipAdapter.imageEncoder",
        )
    main = {part: folder(fetched.of(component), part) for component, part in _FOLDERS.items()}
    early.judge_models(main, {name: folder(digest, parts.CONTROLNET) for name, digest in fetched.control_nets.items()})
    tiers.judged(folder(fetched.base, "scheduler").parent, spec.listed(), spec.pipelines)
    if checked:
        comparable.require_comparable(
            main[parts.UNET], {item.task for item in spec.pipelines},
            ip_adapter=any(python_models.IP_ADAPTER in item.features for item in spec.pipelines),
        )  # fmt: skip


def _fetch(context: Context, spec: BuildSpec, results: list[Result]) -> Fetched:
    def bring(source: Source, component: str | None = None, file: str | None = None) -> str:
        if source.digest is not None:
            return str(context.store.get(Kind.SOURCE, source.digest).manifest.digest)
        results.append(stages.fetch(context, _origin(source, component, file)))
        return str(results[-1]["digest"])

    model = spec.model
    adapter, checker = model.ip_adapter, model.safety_checker
    return Fetched(
        bring(model.source),
        {name: bring(item.source, name) for name, item in model.components.items()},
        [bring(item.source, "lora", item.file) for item in model.loras],
        {item.name: bring(item.source, "controlnet") for item in model.control_nets},
        bring(adapter.source, "ip_adapter", adapter.file) if adapter else None,
        bring(adapter.image_encoder.source, parts.IMAGE_ENCODER) if adapter and adapter.image_encoder else None,
        bring(checker.source, parts.SAFETY_CHECKER) if checker else None,
    )


def _origin(source: Source, component: str | None, file: str | None) -> stages.Origin:
    hub, archive = source.hugging_face, source.archive
    return stages.Origin(
        source.path, hub.repo if hub else None, hub.revision if hub else None, archive.url if archive else None,
        archive.sha256 if archive else None, component, file, source.subfolder, source.variant,
    )  # fmt: skip


def exports(spec: BuildSpec, fetched: Fetched) -> Iterator[Export]:
    """What is exported, and with which options.

    Args:
        spec: what is made.
        fetched: all sources.
    """
    model = spec.model
    others = list(dict.fromkeys((*fetched.components.values(), fetched.base))) if fetched.components else []
    loras = [{"source": digest, "weight": lora.weight} for digest, lora in zip(fetched.loras, model.loras, strict=True)]
    long = {"longPrompts": model.long_prompts}
    merged = {**long, "loras": loras}
    adapter = {"ipAdapter": fetched.ip_adapter, "imageEncoder": fetched.image_encoder}
    options: dict[Component, dict[str, Any]] = {
        Component.TEXT_ENCODER: {**merged, "clipSkip": model.clip_skip},
        Component.DENOISER: {
            **merged, "guidanceRescale": model.guidance_rescale, "controlNets": len(model.control_nets),
            **adapter,
        },
        Component.IMAGE_ENCODER: adapter,
    }  # fmt: skip
    for component in _components(spec):
        yield Export(component, component, _given(component, options.get(component, {}), others))
    for name, digest in fetched.control_nets.items():
        given = _given(Component.CONTROLNET, {**long, "controlNet": digest}, others)
        yield Export(python_models.control_model(name), Component.CONTROLNET, given)


def _components(spec: BuildSpec) -> Iterator[Component]:
    yield from TEXT_TO_IMAGE
    if any(item.task != "generate" for item in spec.pipelines):
        yield Component.VAE_ENCODER
    if spec.model.ip_adapter:
        yield Component.IMAGE_ENCODER
    if spec.model.control_nets:
        yield Component.CONTROL_OFF
    if spec.model.safety_checker:
        yield Component.SAFETY_CHECKER


def _given(component: Component, options: Mapping[str, Any], others: Sequence[str]) -> Mapping[str, Any]:
    """Options that say something; with the sources of other components for those that need their sizes."""
    around = {"around": others} if component in NEEDED else {}
    return {name: value for name, value in {**options, **around}.items() if value}


def _engine(context: Context, spec: BuildSpec, what: tuple[Target, Fetched, Export], results: list[Result]) -> str:
    """Export and compile one component; returns the engine's digest."""
    target, fetched, item = what
    source = fetched.of(item.component)
    precision = spec.precisions()[item.component]
    exported = stages.export(context, source, item.component, precision, json.dumps(item.options))
    compiled = stages.compile_(
        context,
        stages.CompileRequest(
            str(exported["digest"]), spec.runtime(target), target.sku, spec.shapes.model_dump_json(),
            spec.engines.optimization_level, spec.engines.workspace,
        ),
    )  # fmt: skip
    results += [exported, compiled]
    return str(compiled["digest"])


def _assembly(spec: BuildSpec, target: Target, fetched: Fetched, engines: Mapping[str, str]) -> Mapping[str, Any]:
    batching = spec.serving.batching
    names = {python_models.control_model(name): name for name in fetched.control_nets}
    return {
        "source": fetched.base,
        "engines": {name: digest for name, digest in engines.items() if name not in names},
        "controlNets": [{"name": name, "engine": engines[model]} for model, name in names.items()],
        "runtime": spec.runtime(target),
        "pipelines": [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in spec.pipelines],
        "schedulers": [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in spec.listed()],
        "shapes": spec.shapes.model_dump(mode="json"),
        "batching": {
            "maxDelayMicroseconds": batching.microseconds,
            "preferred": batching.preferred,
            "takeTurns": batching.take_turns,
            "priorities": batching.priorities,
        },
    }
