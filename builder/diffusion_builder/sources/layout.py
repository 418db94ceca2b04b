"""Selection of the files of a checkpoint in diffusers layout; checks that they are safe and complete.

Pure functions over file names and parsed JSON: the hub and a local folder are validated by the same rules.
Only safetensors, JSON and text ever get into the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources import variants
from diffusion_builder.sources.names import WEIGHTS, check_path, is_weights
from diffusion_contract.enums import ModelFamily

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODEL_INDEX = "model_index.json"
# Classes of one family have the same components.
PIPELINES: Mapping[str, ModelFamily] = {
    "StableDiffusionPipeline": ModelFamily.STABLE_DIFFUSION,
    "StableDiffusionInpaintPipeline": ModelFamily.STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": ModelFamily.STABLE_DIFFUSION_XL,
    "StableDiffusionXLInpaintPipeline": ModelFamily.STABLE_DIFFUSION_XL,
}


# Of the checkpoint of a refiner, which has no first text encoder.
_REFINER = "StableDiffusionXLImg2ImgPipeline"


@dataclass(frozen=True)
class CheckpointFolder:
    """A subfolder of a checkpoint.

    Args:
        name: folder and key in model_index.json.
        classes: class names that are understood; empty for any.
        weights: stem of the weights' file, or None for a part without weights.
        required: files that must be there.
        optional: files that are taken along when they are there.
    """

    name: str
    classes: tuple[str, ...]
    weights: str | None
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "special_tokens_map.json", "added_tokens.json")
CHECKPOINT_FOLDERS: tuple[CheckpointFolder, ...] = (
    CheckpointFolder("text_encoder", ("CLIPTextModel",), "model", ("config.json",)),
    CheckpointFolder("unet", ("UNet2DConditionModel",), "diffusion_pytorch_model", ("config.json",)),
    CheckpointFolder("vae", ("AutoencoderKL", "AutoencoderTiny"), "diffusion_pytorch_model", ("config.json",)),
    CheckpointFolder(
        "tokenizer", ("CLIPTokenizer", "CLIPTokenizerFast"), None, ("tokenizer_config.json",), _TOKENIZER_FILES
    ),
    CheckpointFolder("scheduler", (), None, ("scheduler_config.json",)),
)  # fmt: skip
# Folders of a family besides those that every checkpoint has.
_FAMILY_FOLDERS: Mapping[ModelFamily, tuple[CheckpointFolder, ...]] = {
    ModelFamily.STABLE_DIFFUSION: (),
    ModelFamily.STABLE_DIFFUSION_XL: (
        CheckpointFolder("text_encoder_2", ("CLIPTextModelWithProjection",), "model", ("config.json",)),
        CheckpointFolder(
            "tokenizer_2", ("CLIPTokenizer", "CLIPTokenizerFast"), None, ("tokenizer_config.json",), _TOKENIZER_FILES
        ),
    ),
}


LORA = "lora"
# PEFT's own file with the strength of its adapter_model.safetensors.
_LORA_SETTINGS = "adapter_config.json"
# As many names as a message lists.
_MAX_LISTED = 5
IP_ADAPTER = "ip_adapter"
IMAGE_ENCODER = CheckpointFolder("image_encoder", ("CLIPVisionModelWithProjection",), "model", ("config.json",))
# What can be fetched alone, besides a LoRA and an IP-Adapter, which are one file.
_STANDALONE: Mapping[str, CheckpointFolder] = {
    part.name: part
    for part in (
        *CHECKPOINT_FOLDERS,
        *_FAMILY_FOLDERS[ModelFamily.STABLE_DIFFUSION_XL],
        IMAGE_ENCODER,
        CheckpointFolder("controlnet", ("ControlNetModel",), "diffusion_pytorch_model", ("config.json",)),
        CheckpointFolder("safety_checker", ("StableDiffusionSafetyChecker",), "model", ("config.json",)),
    )
}
# Engines are called by what they do; their weights lie in folders with older names.
_ALIASES: Mapping[str, str] = {"denoiser": "unet", "vae_decoder": "vae", "vae_encoder": "vae"}
COMPONENTS = (*sorted((*_STANDALONE, LORA, IP_ADAPTER)), *sorted(_ALIASES))


@dataclass(frozen=True)
class Selection:
    """Part of an origin that is fetched.

    Args:
        component: one of COMPONENTS, or None for a whole checkpoint.
        file: which safetensors file is the LoRA or IP-Adapter, where there are several.
        subfolder: the folder of the origin that is taken as its root.
        variant: which weights are taken where there are several, such as `fp16`.
    """

    component: str | None = None
    file: str | None = None
    subfolder: str | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        if self.component is not None and self.component not in COMPONENTS:
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"component {self.component!r} is none of {', '.join(COMPONENTS)}"
            )
        if self.file is not None and self.part not in (LORA, IP_ADAPTER):
            raise BadInputError(Reason.INVALID_ARGUMENT, "a file is named only for lora and ip_adapter")
        if self.file is not None and not is_weights(self.file):
            raise BadInputError(Reason.PICKLE_ONLY, f"file {self.file!r} is no safetensors file")
        if self.variant is not None and not re.fullmatch(variants.VARIANT, self.variant):
            raise BadInputError(Reason.INVALID_ARGUMENT, f"variant {self.variant!r} must be a word such as fp16")
        if self.subfolder is not None:
            _check_subfolder(self.subfolder)
            object.__setattr__(self, "subfolder", str(PurePosixPath(self.subfolder)))

    @property
    def part(self) -> str | None:
        """Folder of the component."""
        return _ALIASES.get(self.component, self.component) if self.component else None

    @property
    def prefix(self) -> str:
        """What the names of all selected files begin with."""
        return f"{self.subfolder}/" if self.subfolder not in (None, ".") else ""

    def inputs(self) -> Mapping[str, str]:
        """What goes into the digest besides the origin."""
        fields = {"component": self.part, "file": self.file, "subfolder": self.subfolder, "variant": self.variant}
        return {name: value for name, value in fields.items() if value is not None}


def _check_subfolder(name: str) -> None:
    try:
        check_path(str(PurePosixPath(name)) if name else name)
    except BadInputError as error:
        raise BadInputError(
            Reason.INVALID_ARGUMENT, f"subfolder {name!r} must be a folder inside of the source, such as v2/large"
        ) from error


def check_index(index: Mapping[str, Any]) -> str:
    """Validate model_index.json.

    Args:
        index: the parsed file.

    Returns:
        The pipeline's class name.

    Raises:
        BadInputError: a pipeline or component class that is not supported, code of its own, or a missing component.
    """
    pipeline = index.get("_class_name")
    if pipeline == _REFINER:
        raise BadInputError(
            Reason.UNSUPPORTED_PIPELINE,
            f"{MODEL_INDEX} names the pipeline class {pipeline!r}, that of a refiner, which needs a base: name the "
            "base in model.source, and this checkpoint in model.refiner.source",
        )
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        raise BadInputError(
            Reason.UNSUPPORTED_PIPELINE,
            f"{MODEL_INDEX} names the pipeline class {pipeline!r}; supported are: {', '.join(PIPELINES)}",
        )
    for part in folders_of(pipeline):
        _check_class(part, index.get(part.name))
    return pipeline


def check_family(pipeline: str, family: ModelFamily) -> None:
    """Compare a checkpoint with the family that is requested.

    Args:
        pipeline: class that its model_index.json names; empty for a component alone.
        family: that is requested.

    Raises:
        BadInputError: the class is one of another family.
    """
    actual = PIPELINES.get(pipeline, family)
    if actual is not family:
        raise BadInputError(
            Reason.COMPONENT_MISMATCH,
            f"{MODEL_INDEX} names the pipeline class {pipeline!r} of the family {actual}, but {family} is requested: "
            f"set model.family to {actual}, or take a checkpoint of {family}",
        )


def folders_of(pipeline: str) -> tuple[CheckpointFolder, ...]:
    """Folders of a checkpoint whose model_index.json names this class."""
    return (*CHECKPOINT_FOLDERS, *_FAMILY_FOLDERS[PIPELINES[pipeline]])


def _check_class(part: CheckpointFolder, entry: object) -> None:
    if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:  # noqa: PLR2004 - [library, class]
        raise BadInputError(
            Reason.MISSING_COMPONENT, f"{MODEL_INDEX} has no {part.name}: the checkpoint must contain it"
        )
    library, name = entry
    if library not in ("diffusers", "transformers"):
        raise BadInputError(
            Reason.REMOTE_CODE,
            f"{MODEL_INDEX} takes {part.name} from {library!r}: only diffusers and transformers are loaded",
        )
    if part.classes and name not in part.classes:
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT,
            f"{MODEL_INDEX} has {part.name} of class {name!r}; supported are: {', '.join(part.classes)}",
        )


def check_config(name: str, config: object) -> None:
    """Validate a component's JSON file.

    Raises:
        BadInputError: it is no object, or asks for code from the repository.
    """
    if not isinstance(config, dict):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} must be a JSON object")
    if name.endswith("config.json") and _contains_key(config, "auto_map"):
        raise BadInputError(
            Reason.REMOTE_CODE,
            f"{name} has auto_map, which makes loaders run Python code of the repository: remove it if the "
            "checkpoint works without",
        )


def _contains_key(value: object, key: str) -> bool:
    """Whether a key is anywhere in nested JSON; without recursion, which an attacker could exhaust."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if key in item:
                return True
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


def check_component(name: str, config: Mapping[str, Any]) -> None:
    """Validate the config.json of a component that comes without model_index.json.

    Raises:
        BadInputError: it says that it is of a class that is not supported.
    """
    part = _STANDALONE.get(PurePosixPath(name).parent.name)
    class_names = config.get("_class_name") or config.get("architectures") or []
    classes = class_names if isinstance(class_names, list) else [class_names]
    if part and classes and not set(map(str, classes)) & set(part.classes):
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT, f"{name} is of class {classes[0]!r}; supported are: {', '.join(part.classes)}"
        )


def select_files(
    names: Sequence[str], selection: Selection, folders: tuple[CheckpointFolder, ...] = CHECKPOINT_FOLDERS
) -> Mapping[str, str]:
    """Choose the files to take.

    Args:
        names: all files of the origin, relative, with forward slashes.
        selection: the checkpoint or component, and where it lies.
        folders: of a whole checkpoint.

    Returns:
        Name in the store to name in the origin.

    Raises:
        BadInputError: something that is needed is not there.
    """
    prefix = selection.prefix
    present = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    if not present and prefix:
        available = sorted({name.partition("/")[0] for name in names if "/" in name})
        raise BadInputError(
            Reason.MISSING_FILE,
            f"there is no subfolder {selection.subfolder}; folders are: {', '.join(available[:_MAX_LISTED]) or 'none'}",
        )
    if selection.part is None:
        files = _checkpoint(present, selection.variant, folders)
    elif selection.part in (LORA, IP_ADAPTER):
        files = _single(selection.part, selection, present)
    else:
        files = _component(_STANDALONE[selection.part], present, selection.variant)
    return {target: prefix + name for target, name in sorted(files.items())}


def _component(part: CheckpointFolder, present: set[str], variant: str | None) -> Mapping[str, str]:
    """A component in the folder of its name, or in the root."""
    prefix = f"{part.name}/" if f"{part.name}/{part.required[0]}" in present else ""
    inside = {name.removeprefix(prefix) for name in present if name.startswith(prefix)}
    _check_variant([(part, inside)], variant)
    return {target: prefix + name for target, name in _part_files(part, inside, variant).items()}


def _single(part: str, selection: Selection, present: set[str]) -> Mapping[str, str]:
    """A LoRA or IP-Adapter: one file, and what belongs to it, where it lies beside it."""
    file = selection.file or _only_file(part, selection.variant, present)
    if file not in present:
        raise BadInputError(Reason.MISSING_FILE, f"{part}: there is no {file}")
    files = {f"{part}/{PurePosixPath(file).name}": file}
    if part == LORA:
        settings = str(PurePosixPath(file).parent / _LORA_SETTINGS)
        return files | ({f"{part}/{_LORA_SETTINGS}": settings} if settings in present else {})
    folders = {f"{parent}/" if str(parent) != "." else "" for parent in PurePosixPath(file).parents}
    for prefix in sorted(folders, key=len, reverse=True):
        folder = f"{prefix}{IMAGE_ENCODER.name}/"
        if f"{folder}config.json" in present:
            inside = {name.removeprefix(folder) for name in present if name.startswith(folder)}
            encoder = _part_files(IMAGE_ENCODER, inside, selection.variant)
            return files | {target: folder + name for target, name in encoder.items()}
    return files


def _only_file(part: str, variant: str | None, present: set[str]) -> str:
    """The one safetensors file in the root, not counting what desktops leave there."""
    ending = f".{variant}{WEIGHTS}" if variant else WEIGHTS
    names = sorted(name for name in present if "/" not in name and not name.startswith("."))
    files = [name for name in names if name.endswith(ending)]
    if len(files) == 1:
        return files[0]
    if not files and any(map(variants.is_pickle, names)):
        raise BadInputError(
            Reason.PICKLE_ONLY, f"the {part} is there only as a pickle, which can run code: convert it to safetensors"
        )
    summary = f"{len(files)} files *{ending} are there"
    listing = f" ({', '.join(files[:_MAX_LISTED])})" if files else ""
    raise BadInputError(
        Reason.MISSING_FILE, f"{part}: {summary}{listing}: name one with --file (in a pipeline: {part}'s file)"
    )


def _checkpoint(present: set[str], variant: str | None, folders: tuple[CheckpointFolder, ...]) -> Mapping[str, str]:
    if MODEL_INDEX not in present:
        places = sorted(str(PurePosixPath(name).parent) for name in present if PurePosixPath(name).name == MODEL_INDEX)
        where = (
            f"it lies in {', '.join(places[:_MAX_LISTED])}: name one with --subfolder (in a pipeline: the source's "
            "subfolder)"
            if places
            else "a checkpoint in diffusers layout is expected"
        )
        raise BadInputError(Reason.MISSING_FILE, f"there is no {MODEL_INDEX}: {where}")
    inside = {
        part.name: {name.removeprefix(f"{part.name}/") for name in present if name.startswith(f"{part.name}/")}
        for part in folders
    }
    files = {MODEL_INDEX: MODEL_INDEX}
    _check_variant([(part, inside[part.name]) for part in folders], variant)
    for part in folders:
        part_files = _part_files(part, inside[part.name], variant)
        files |= {target: f"{part.name}/{name}" for target, name in part_files.items()}
    return files


def _check_variant(folders: Sequence[tuple[CheckpointFolder, set[str]]], variant: str | None) -> None:
    """Some part must have it, or the word is wrong."""
    available = {
        name for part, inside in folders if part.weights is not None for name in variants.variants(part.weights, inside)
    }
    if variant is not None and variant not in available:
        raise BadInputError(
            Reason.MISSING_FILE,
            f"there are no weights of the variant {variant!r}; variants are: {', '.join(sorted(available)) or 'none'}",
        )


def _part_files(part: CheckpointFolder, inside: set[str], variant: str | None) -> Mapping[str, str]:
    """Name in the store to name in the part's folder."""
    if not inside:
        raise BadInputError(Reason.MISSING_COMPONENT, f"there is no folder {part.name}: the checkpoint must contain it")
    missing = [name for name in part.required if name not in inside]
    if missing:
        raise BadInputError(Reason.MISSING_FILE, f"{part.name} lacks {', '.join(missing)}")
    files = {name: name for name in (*part.required, *part.optional) if name in inside}
    if part.weights is not None:
        files |= variants.select_weights(part.name, part.weights, inside, variant)
    return {f"{part.name}/{target}": name for target, name in files.items()}
