"""The component graph: which engines a spec needs, and what each is exported from; pure functions.

The operator makes Jobs of it, `diffusion-builder build` makes calls of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_contract import subfolders
from diffusion_contract.enums import LOOP_DENOISERS, Component, ModelFamily, Precision
from diffusion_contract.exports import APPLIES
from diffusion_contract.spec.acceleration import denoiser_variants
from diffusion_contract.spec.model import Model, Source
from diffusion_contract.spec.pipeline import DiffusionPipelineSpec

CHECKPOINT = "model"
"""Name of the SourceRef of the whole checkpoint."""

_LORAS, _CONTROL_NET, _IP_ADAPTER, _IMAGE_ENCODER = "loras", "controlNet", "ipAdapter", "imageEncoder"
_OVERRIDES: Mapping[str, str] = {
    subfolders.UNET: "denoiser",
    subfolders.TEXT_ENCODER: "text_encoder",
    subfolders.TEXT_ENCODER_2: "text_encoder_2",
    subfolders.VAE: "vae",
}
_SHAPING: Mapping[ModelFamily, tuple[str, ...]] = {
    ModelFamily.STABLE_DIFFUSION: (subfolders.TEXT_ENCODER, subfolders.VAE),
    ModelFamily.STABLE_DIFFUSION_XL: (subfolders.TEXT_ENCODER, subfolders.TEXT_ENCODER_2, subfolders.VAE),
}
"""Subfolders whose configurations decide sizes of other components' graphs."""
_TEXT_ENCODERS: Mapping[ModelFamily, tuple[Component, ...]] = {
    ModelFamily.STABLE_DIFFUSION: (Component.TEXT_ENCODER,),
    ModelFamily.STABLE_DIFFUSION_XL: (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2),
}


@dataclass(frozen=True)
class SourceRef:
    """One source that is fetched.

    Attributes:
        name: unique within a spec: `model`, an override's component, `lora_1`, `controlnet_<name>` and so on.
        source: where it comes from.
        component: the only component that is fetched of it; None for a whole checkpoint.
        file: which safetensors file of it, where it has several.
    """

    name: str
    source: Source
    component: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Addon:
    """A source that is merged into a component or added to it.

    Attributes:
        option: of the export that names it.
        source: name of its SourceRef.
        weight: of a LoRA.
    """

    option: str
    source: str
    weight: float = 1.0


Setting = bool | int | str


@dataclass(frozen=True)
class EngineSpec:
    """One engine; sources are names of SourceRefs.

    Attributes:
        name: unique within a spec; that of a ControlNet's engine is the name of its source.
        component: that is exported and compiled.
        precision: number format of its weights and arithmetic.
        source: that the component is exported from.
        contents: subfolders that decide about the graph, each with the source that it is read from.
        shape_sources: sources whose configurations decide sizes of the graph, the first one that has a subfolder
            counts, and `source` after them.
        addons: what is merged in or added.
        settings: other options of the export, as (name, value).
    """

    name: str
    component: Component
    precision: Precision
    source: str
    contents: tuple[tuple[str, str], ...] = ()
    shape_sources: tuple[str, ...] = ()
    addons: tuple[Addon, ...] = ()
    settings: tuple[tuple[str, Setting], ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources that have to be fetched before the export."""
        return tuple(dict.fromkeys((self.source, *self.shape_sources, *(addon.source for addon in self.addons))))

    def options(self, resolve: Callable[[str], Any]) -> dict[str, Any]:
        """The export's options as JSON; defaults are left out.

        Args:
            resolve: what stands for the source of this name, its digest for instance.
        """
        options: dict[str, Any] = {name: value for name, value in self.settings if value}
        for addon in self.addons:
            if addon.option == _LORAS:
                options.setdefault(_LORAS, []).append({"source": resolve(addon.source), "weight": addon.weight})
            else:
                options[addon.option] = resolve(addon.source)
        if self.shape_sources:
            options["shapeSources"] = [resolve(name) for name in self.shape_sources]
        return options


def sources(model: Model) -> tuple[SourceRef, ...]:
    """What is fetched: the checkpoint first."""
    return tuple(_sources(model))


def engines(spec: DiffusionPipelineSpec) -> tuple[EngineSpec, ...]:
    """The engines of a spec, in the order in which the status shows them."""
    return tuple(_Graph(spec).engines())


def control_net(name: str) -> str:
    """Name of a ControlNet's source and of its engine."""
    return f"{Component.CONTROLNET}_{name}"


def _sources(model: Model) -> Iterator[SourceRef]:
    yield SourceRef(CHECKPOINT, model.source)
    for name, override in _overrides(model).items():
        yield SourceRef(name, override, name)
    for number, lora in enumerate(model.loras or (), 1):
        yield SourceRef(f"{subfolders.LORA}_{number}", lora.source, subfolders.LORA, lora.file)
    for net in model.control_nets or ():
        yield SourceRef(control_net(net.name), net.source, subfolders.CONTROLNET)
    adapter = model.ip_adapter
    if adapter is not None:
        yield SourceRef(subfolders.IP_ADAPTER, adapter.source, subfolders.IP_ADAPTER, adapter.file)
        if adapter.image_encoder is not None:
            yield SourceRef(subfolders.IMAGE_ENCODER, adapter.image_encoder.source, subfolders.IMAGE_ENCODER)
    if model.preview_vae is not None:
        yield SourceRef(subfolders.PREVIEW_VAE, model.preview_vae.source, subfolders.VAE)
    if model.refiner is not None:
        yield SourceRef(subfolders.REFINER, model.refiner.source, subfolders.UNET)
    if model.safety_checker is not None:
        yield SourceRef(subfolders.SAFETY_CHECKER, model.safety_checker.source, subfolders.SAFETY_CHECKER)


def _overrides(model: Model) -> dict[str, Source]:
    overrides = model.components.by_name() if model.components is not None else {}
    return {name: override.source for name, override in overrides.items()}


class _Graph:
    """Makes the engines of one spec."""

    def __init__(self, spec: DiffusionPipelineSpec) -> None:
        self._spec = spec
        self._model = spec.model
        self._family = spec.model.family or ModelFamily.STABLE_DIFFUSION
        self._overrides = _overrides(spec.model)
        self._control_nets = tuple(control_net(net.name) for net in spec.model.control_nets or ())

    def engines(self) -> Iterator[EngineSpec]:
        """In the order of the denoising, then what only some pipelines have."""
        for component in _TEXT_ENCODERS[self._family]:
            yield self._engine(component, addons=self._loras())
        for component in denoiser_variants(self._spec.acceleration):
            yield self._engine(component, addons=(*self._loras(), *self._adapter()))
        if self._model.refiner is not None:
            yield self._engine(Component.REFINER)
        yield self._engine(Component.SCHEDULER_STEP)
        yield self._engine(Component.VAE_DECODER)
        if self._model.preview_vae is not None:
            yield self._engine(Component.PREVIEW_DECODER)
        if any(item.task != "generate" for item in self._spec.pipelines):
            yield self._engine(Component.VAE_ENCODER)
        if self._control_nets:
            yield self._engine(Component.ZERO_RESIDUALS)
        for name in self._control_nets:
            yield self._engine(Component.CONTROLNET, name, (Addon(_CONTROL_NET, name),))
        if self._model.ip_adapter is not None:
            yield self._engine(Component.IMAGE_ENCODER, addons=self._adapter())
        if self._model.safety_checker is not None:
            yield self._engine(Component.SAFETY_CHECKER)

    def _engine(self, component: Component, name: str = "", addons: tuple[Addon, ...] = ()) -> EngineSpec:
        source = self._source(component)
        return EngineSpec(
            name or component,
            component,
            self._spec.precision_of(component),
            source,
            self._content_sources(component),
            self._shape_sources(component, source),
            addons,
            self._settings(component),
        )

    def _source(self, component: Component) -> str:
        """Source of the component's weights; that of the UNet for a ControlNet, which has to fit it."""
        if component is Component.PREVIEW_DECODER:
            return subfolders.PREVIEW_VAE
        if component is Component.REFINER:
            return subfolders.REFINER
        folder = subfolders.UNET if component is Component.CONTROLNET else subfolders.WEIGHTS[component]
        return self._holder(folder)

    def _holder(self, folder: str | None) -> str:
        """Source that brings a subfolder: its override, else the checkpoint."""
        if folder == subfolders.SAFETY_CHECKER:
            return subfolders.SAFETY_CHECKER
        name = _OVERRIDES.get(folder or "", "")
        return name if name in self._overrides else CHECKPOINT

    def _shape_sources(self, component: Component, source: str) -> tuple[str, ...]:
        if component not in APPLIES["shapeSources"]:
            return ()
        holders = (self._holder(folder) for folder in _SHAPING[self._family])
        names = tuple(dict.fromkeys(name for name in holders if name != CHECKPOINT))
        return names if source == CHECKPOINT else (*names, CHECKPOINT)

    def _loras(self) -> tuple[Addon, ...]:
        loras = enumerate(self._model.loras or (), 1)
        return tuple(Addon(_LORAS, f"{subfolders.LORA}_{number}", lora.weight) for number, lora in loras)

    def _adapter(self) -> tuple[Addon, ...]:
        """What makes reference images guide the denoiser; its graph has the sizes of the image encoder."""
        adapter = self._model.ip_adapter
        if adapter is None:
            return ()
        addon = Addon(_IP_ADAPTER, subfolders.IP_ADAPTER)
        return (addon,) if adapter.image_encoder is None else (addon, Addon(_IMAGE_ENCODER, subfolders.IMAGE_ENCODER))

    def _settings(self, component: Component) -> tuple[tuple[str, Setting], ...]:
        settings: dict[str, Setting | None] = {
            "clipSkip": self._model.clip_skip,
            "longPrompts": self._model.long_prompts,
            "promptWeighting": self._model.weighting,
            "guidanceRescale": self._model.guidance_rescale,
            "controlNets": len(self._control_nets),
            "shallowLayers": self._shallow_layers(),
            "refiner": self._model.refiner is not None,
            "family": "" if self._family is ModelFamily.STABLE_DIFFUSION else str(self._family),
        }
        return tuple((name, value) for name, value in settings.items() if value and component in APPLIES[name])

    def _content_sources(self, component: Component) -> tuple[tuple[str, str], ...]:
        """Subfolders that decide about a graph, each with its source."""
        if component is Component.PREVIEW_DECODER:
            return ((subfolders.VAE, subfolders.PREVIEW_VAE),)
        if component is Component.REFINER:
            shaping = ((folder, self._holder(folder)) for folder in _SHAPING[self._family])
            return ((subfolders.UNET, subfolders.REFINER), *shaping)
        return tuple((folder, self._holder(folder)) for folder in self._contents(component))

    def _shallow_layers(self) -> int:
        acceleration = self._spec.acceleration
        return acceleration.deep_cache.layers if acceleration is not None and acceleration.deep_cache is not None else 0

    def _contents(self, component: Component) -> tuple[str, ...]:
        """Subfolders that decide about a graph."""
        shaping = _SHAPING[self._family]
        if component in {*LOOP_DENOISERS, Component.CONTROLNET, Component.ZERO_RESIDUALS}:
            return (subfolders.UNET, *shaping)
        if component is Component.TEXT_ENCODER_2:
            return (subfolders.TEXT_ENCODER_2, subfolders.TEXT_ENCODER)
        if component is Component.SCHEDULER_STEP:
            return (subfolders.VAE,)
        # The image encoder comes with an add-on, whose content counts.
        folder = subfolders.WEIGHTS[component]
        return () if component is Component.IMAGE_ENCODER or folder is None else (folder,)
