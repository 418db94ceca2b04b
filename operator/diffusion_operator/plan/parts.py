"""Which engines a spec needs, what each is made from, and with which options it is exported; pure data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusion_contract.spec import DiffusionPipelineSpec, Model, Precision, Source
from diffusion_operator.json_objects import JsonObject

MODEL = "model"
IP_ADAPTER = "ip_adapter"
IMAGE_ENCODER = "image_encoder"
SAFETY_CHECKER = "safety_checker"
FOLDERS: Mapping[str, str] = {
    "text_encoder": "text_encoder",
    "denoiser": "unet",
    "vae": "vae",
    SAFETY_CHECKER: "safety_checker",
}
"""Folder that a source with this role brings, instead of the checkpoint."""
SURROUNDINGS = ("text_encoder", "vae")
"""Folders whose sizes get into the graphs of others."""


@dataclass(frozen=True)
class Origin:
    """One thing that is fetched.

    Attributes:
        component: only this of the source; None for a whole checkpoint.
        file: which safetensors file of it.
    """

    source: Source
    component: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Part:
    """One engine.

    Attributes:
        name: of the engine; a ControlNet's has its own name in it.
        component: of the builder.
        base: role of the source that is exported.
        folders: of the checkpoint that decide about the graph.
        around: roles of the sources with what `base` lacks, in the order in which they are looked through.
        additions: roles of the sources that are merged in or added.
    """

    name: str
    component: str
    base: str
    folders: tuple[str, ...]
    around: tuple[str, ...] = ()
    additions: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """All sources that have to be there first."""
        return tuple(dict.fromkeys((self.base, *self.around, *self.additions)))


def origins(model: Model) -> dict[str, Origin]:
    """What is fetched, by role."""
    found = {MODEL: Origin(model.source)}
    found |= {name: Origin(source, name) for name, source in model.overrides().items()}
    for number, lora in enumerate(model.loras or ()):
        found[_lora(number)] = Origin(lora.source, "lora", lora.file)
    for net in model.control_nets or ():
        found[control_net(net.name)] = Origin(net.source, "controlnet")
    if model.ip_adapter is not None:
        found[IP_ADAPTER] = Origin(model.ip_adapter.source, "ip_adapter", model.ip_adapter.file)
    if model.ip_adapter is not None and model.ip_adapter.image_encoder is not None:
        found[IMAGE_ENCODER] = Origin(model.ip_adapter.image_encoder.source, IMAGE_ENCODER)
    if model.safety_checker is not None:
        found[SAFETY_CHECKER] = Origin(model.safety_checker.source, "safety_checker")
    return found


def parts(spec: DiffusionPipelineSpec) -> tuple[Part, ...]:
    """The engines in the order in which the status shows them."""
    model = spec.model
    overrides = model.overrides()
    loras = tuple(_lora(number) for number in range(len(model.loras or ())))
    adapter = _adapter(model)
    nets = tuple(net.name for net in model.control_nets or ())

    def around(base: str) -> tuple[str, ...]:
        others = tuple(name for name in SURROUNDINGS if name in overrides)
        return (*others, MODEL) if base != MODEL else others

    def role(name: str) -> str:
        return name if name in overrides else MODEL

    unet = role("denoiser")
    sizes = ("unet", *SURROUNDINGS)
    found = [
        Part("text_encoder", "text_encoder", role("text_encoder"), ("text_encoder",), additions=loras),
        Part("denoiser", "denoiser", unet, sizes, around(unet), (*loras, *adapter)),
        Part("scheduler_step", "scheduler_step", MODEL, ("vae",), around(MODEL)),
        Part("vae_decoder", "vae_decoder", role("vae"), ("vae",)),
    ]
    if any(item.task != "generate" for item in spec.pipelines):
        found.append(Part("vae_encoder", "vae_encoder", role("vae"), ("vae",)))
    if nets:
        found.append(Part("control_off", "control_off", unet, sizes, around(unet)))
    for name in nets:
        key = control_net(name)
        found.append(Part(key, "controlnet", unet, sizes, around(unet), (key,)))
    if adapter:
        found.append(Part(IMAGE_ENCODER, "image_encoder", MODEL, (), additions=adapter))
    if model.safety_checker is not None:
        found.append(Part(SAFETY_CHECKER, "safety_checker", SAFETY_CHECKER, ("safety_checker",)))
    return tuple(found)


def options(spec: DiffusionPipelineSpec, part: Part, name_of: Callable[[str], JsonObject | str]) -> JsonObject:
    """The builder's export options; what is as usual is left out.

    Args:
        spec: of the pipeline.
        part: what is exported.
        name_of: name of the source with this role.
    """
    model = spec.model
    found: JsonObject = {}
    if part.component in {"text_encoder", "denoiser"} and model.loras:
        found["loras"] = [
            {"source": name_of(_lora(number)), "weight": lora.weight} for number, lora in enumerate(model.loras)
        ]
    if part.component == "text_encoder" and model.clip_skip:
        found["clipSkip"] = model.clip_skip
    if part.component in {"text_encoder", "denoiser", "controlnet"} and model.long_prompts:
        found["longPrompts"] = True
    if part.component == "denoiser":
        found |= _denoiser(model)
    if IP_ADAPTER in part.additions:
        found["ipAdapter"] = name_of(IP_ADAPTER)
    if IMAGE_ENCODER in part.additions:
        found["imageEncoder"] = name_of(IMAGE_ENCODER)
    if part.component == "controlnet":
        found["controlNet"] = name_of(part.name)
    if part.around:
        found["around"] = [name_of(role) for role in part.around]
    return found


def precision(spec: DiffusionPipelineSpec, part: Part) -> Precision:
    """Number format of the part's weights and arithmetic; sampling is always exact."""
    if part.component == "scheduler_step":
        return "float32"
    return getattr(spec.component_precision, part.component, None) or spec.precision


def _denoiser(model: Model) -> JsonObject:
    found: JsonObject = {}
    if model.guidance_rescale:
        found["guidanceRescale"] = True
    if model.control_nets:
        found["controlNets"] = len(model.control_nets)
    return found


def _adapter(model: Model) -> tuple[str, ...]:
    """Roles of what makes reference pictures guide the denoiser; its graph has the sizes of the image encoder."""
    if model.ip_adapter is None:
        return ()
    return (IP_ADAPTER,) if model.ip_adapter.image_encoder is None else (IP_ADAPTER, IMAGE_ENCODER)


def _lora(number: int) -> str:
    return f"lora_{number + 1}"


def control_net(name: str) -> str:
    """Role of a ControlNet's source, and name of its engine."""
    return f"controlnet_{name}"
