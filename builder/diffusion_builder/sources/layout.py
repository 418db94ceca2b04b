"""Which files of a checkpoint in diffusers layout are wanted, and whether they are safe and complete.

Pure functions over file names and parsed JSON: the hub and a local folder are judged by the same rules.
Only safetensors, JSON and text ever get into the store.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MODEL_INDEX = "model_index.json"
# The same components; a pipeline's own class matters to nobody here.
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
WEIGHTS = ".safetensors"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
# Larger than any vocabulary; a JSON file beyond it only costs memory.
MAX_TEXT_BYTES = 64 << 20
# More than any checkpoint has: beyond that somebody wants to fill a disk.
MAX_TOTAL_BYTES = 256 << 30
MAX_FILES = 10_000
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 1024
_MAX_DEPTH = 16


@dataclass(frozen=True)
class Part:
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


PARTS = (
    Part("text_encoder", ("CLIPTextModel",), "model", ("config.json",)),
    Part("unet", ("UNet2DConditionModel",), "diffusion_pytorch_model", ("config.json",)),
    Part("vae", ("AutoencoderKL",), "diffusion_pytorch_model", ("config.json",)),
    Part(
        "tokenizer", ("CLIPTokenizer", "CLIPTokenizerFast"), None, ("tokenizer_config.json",),
        ("vocab.json", "merges.txt", "tokenizer.json", "special_tokens_map.json", "added_tokens.json"),
    ),
    Part("scheduler", (), None, ("scheduler_config.json",)),
)  # fmt: skip


LORA = "lora"
IP_ADAPTER = "ip_adapter"
IMAGE_ENCODER = Part("image_encoder", ("CLIPVisionModelWithProjection",), "model", ("config.json",))
# What can be fetched alone, besides a LoRA and an IP-Adapter, which are one file.
_ALONE: Mapping[str, Part] = {
    part.name: part
    for part in (
        *PARTS,
        IMAGE_ENCODER,
        Part("controlnet", ("ControlNetModel",), "diffusion_pytorch_model", ("config.json",)),
        Part("safety_checker", ("StableDiffusionSafetyChecker",), "model", ("config.json",)),
    )
}
# Engines are called by what they do; their weights lie in folders with older names.
_ALIASES: Mapping[str, str] = {"denoiser": "unet", "vae_decoder": "vae", "vae_encoder": "vae"}
COMPONENTS = (*sorted((*_ALONE, LORA, IP_ADAPTER)), *sorted(_ALIASES))


@dataclass(frozen=True)
class Wanted:
    """What is fetched.

    Args:
        component: one of COMPONENTS, or None for a whole checkpoint.
        file: which safetensors file is the LoRA or IP-Adapter, where there are several.
    """

    component: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.component is not None and self.component not in COMPONENTS:
            raise BadInputError(
                Reason.INVALID_ARGUMENT, f"component {self.component!r} is none of {', '.join(COMPONENTS)}"
            )
        if self.file is not None and self.part not in (LORA, IP_ADAPTER):
            raise BadInputError(Reason.INVALID_ARGUMENT, "a file is named only for lora and ip_adapter")
        if self.file is not None and not is_weights(self.file):
            raise BadInputError(Reason.PICKLE_ONLY, f"file {self.file!r} is no safetensors file")

    @property
    def part(self) -> str | None:
        """Folder of the component."""
        return _ALIASES.get(self.component, self.component) if self.component else None

    def inputs(self) -> Mapping[str, str]:
        """What goes into the digest besides the origin."""
        given = {"component": self.part, "file": self.file}
        return {name: value for name, value in given.items() if value is not None}


def is_weights(name: str) -> bool:
    """Whether a file holds tensors."""
    return name.endswith(WEIGHTS)


def check_index(index: Mapping[str, Any]) -> str:
    """Judge model_index.json.

    Args:
        index: the parsed file.

    Returns:
        The pipeline's class name.

    Raises:
        BadInputError: a pipeline or component class that is not served, code of its own, or a missing component.
    """
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        raise BadInputError(
            Reason.UNSUPPORTED_PIPELINE,
            f"{MODEL_INDEX} names the pipeline class {pipeline!r}; served are: {', '.join(PIPELINES)}",
        )
    for part in PARTS:
        _check_class(part, index.get(part.name))
    return pipeline


def _check_class(part: Part, entry: object) -> None:
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
            f"{MODEL_INDEX} has {part.name} of class {name!r}; served are: {', '.join(part.classes)}",
        )


def check_config(name: str, config: object) -> None:
    """Judge a component's JSON file.

    Raises:
        BadInputError: it is no object, or asks for code from the repository.
    """
    if not isinstance(config, dict):
        raise BadInputError(Reason.INVALID_CONFIG, f"{name} must be a JSON object")
    if name.endswith("config.json") and _holds(config, "auto_map"):
        raise BadInputError(
            Reason.REMOTE_CODE,
            f"{name} has auto_map, which makes loaders run Python code of the repository: remove it if the "
            "checkpoint works without",
        )


def _holds(value: object, key: str) -> bool:
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
    """Judge the config.json of a component that comes without model_index.json.

    Raises:
        BadInputError: it says that it is of a class that is not served.
    """
    part = _ALONE.get(PurePosixPath(name).parent.name)
    said = config.get("_class_name") or config.get("architectures") or []
    classes = said if isinstance(said, list) else [said]
    if part and classes and not set(map(str, classes)) & set(part.classes):
        raise BadInputError(
            Reason.UNSUPPORTED_COMPONENT, f"{name} is of class {classes[0]!r}; served are: {', '.join(part.classes)}"
        )


def check_path(name: str) -> None:
    """Refuse names that could lead out of the folder they are written to, or that not every filesystem can hold.

    Raises:
        BadInputError: absolute, parent, empty or backslashed parts, control characters, not UTF-8, or too long.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts or str(path) != name:
        raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has a file named {name!r}, which leads out of it")
    if not name.isprintable():
        raise BadInputError(
            Reason.UNSAFE_PATH,
            f"the checkpoint has a file named {name!r}: control characters and what is not UTF-8 are refused",
        )
    longest = max(len(part.encode()) for part in path.parts)
    if longest > _MAX_NAME_BYTES or len(name.encode()) > _MAX_PATH_BYTES or len(path.parts) > _MAX_DEPTH:
        raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has a file with too long a name: {name[:200]!r}...")


def check_names(names: Iterable[str]) -> None:
    """Judge all names of an origin together.

    Raises:
        BadInputError: too many, an unsafe one, or two that are one file on some filesystems.
    """
    seen: dict[str, str] = {}
    for count, name in enumerate(names, 1):
        check_count(count)
        check_path(name)
        folded = unicodedata.normalize("NFC", name.casefold())
        if folded in seen:
            raise BadInputError(
                Reason.UNSAFE_PATH,
                f"the checkpoint has {name!r} and {seen[folded]!r}, which are one file where case does not count",
            )
        seen[folded] = name
    for folded, name in seen.items():
        above = next((str(path) for path in PurePosixPath(folded).parents if str(path) in seen), None)
        if above:
            raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has {name!r} inside of the file {seen[above]!r}")


def check_count(count: int) -> None:
    """Refuse more files than a checkpoint has.

    Raises:
        BadInputError: too many.
    """
    if count > MAX_FILES:
        raise BadInputError(Reason.TOO_LARGE, f"the checkpoint has more than {MAX_FILES} files")


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Judge sizes in bytes before anything is read.

    Raises:
        BadInputError: a text or all together are too large.
    """
    for name, size in sizes.items():
        if not is_weights(name) and size > MAX_TEXT_BYTES:
            raise BadInputError(Reason.TOO_LARGE, f"{name} has {size} bytes, at most {MAX_TEXT_BYTES} are read")
    check_total("the checkpoint", sum(sizes.values()))


def check_total(name: str, size: int) -> None:
    """Refuse more bytes than any model has.

    Raises:
        BadInputError: too many.
    """
    if size > MAX_TOTAL_BYTES:
        raise BadInputError(Reason.TOO_LARGE, f"{name} has {size} bytes, at most {MAX_TOTAL_BYTES} are taken")


def choose(names: Sequence[str], wanted: Wanted) -> Mapping[str, str]:
    """Choose the files to take.

    Args:
        names: all files of the origin, relative, with forward slashes.
        wanted: the checkpoint or component.

    Returns:
        Name in the store to name in the origin.

    Raises:
        BadInputError: something that is needed is not there.
    """
    present = set(names)
    if wanted.part is None:
        return {name: name for name in _checkpoint(present)}
    if wanted.part in (LORA, IP_ADAPTER):
        return _single(wanted.part, wanted.file, present)
    return _component(_ALONE[wanted.part], present)


def _component(part: Part, present: set[str]) -> Mapping[str, str]:
    """A component in the folder of its name, or in the root."""
    prefix = f"{part.name}/" if f"{part.name}/{part.required[0]}" in present else ""
    view = {f"{part.name}/{name.removeprefix(prefix)}": name for name in present if name.startswith(prefix)}
    return {name: view[name] for name in sorted(_part_files(part, set(view)))}


def _single(part: str, file: str | None, present: set[str]) -> Mapping[str, str]:
    """A LoRA or IP-Adapter: one file, and for the latter the image encoder beside it, where there is one."""
    found = sorted(name for name in present if is_weights(name) and "/" not in name)
    if file is None and len(found) == 1:
        file = found[0]
    if file is None and not found and any(name.endswith(_PICKLES) for name in present if "/" not in name):
        raise BadInputError(Reason.PICKLE_ONLY, f"the {part} is there only as a pickle, which can run code: convert it")
    if file is None or file not in present:
        what = f"there is no {file}" if file else f"{len(found)} safetensors files are there: name one with --file"
        raise BadInputError(Reason.MISSING_FILE, f"{part}: {what}")
    files = {f"{part}/{PurePosixPath(file).name}": file}
    if part == IP_ADAPTER:
        folders = {f"{parent}/" if str(parent) != "." else "" for parent in PurePosixPath(file).parents}
        for prefix in sorted(folders, key=len, reverse=True):
            if f"{prefix}{IMAGE_ENCODER.name}/config.json" in present:
                inside = {name.removeprefix(prefix) for name in present if name.startswith(prefix)}
                return files | {name: prefix + name for name in sorted(_part_files(IMAGE_ENCODER, inside))}
    return files


def _checkpoint(present: set[str]) -> tuple[str, ...]:
    if MODEL_INDEX not in present:
        raise BadInputError(
            Reason.MISSING_FILE, f"there is no {MODEL_INDEX}: a checkpoint in diffusers layout is expected"
        )
    chosen = [MODEL_INDEX]
    for part in PARTS:
        chosen += _part_files(part, present)
    return tuple(sorted(chosen))


def _part_files(part: Part, present: set[str]) -> list[str]:
    inside = {name for name in present if name.startswith(f"{part.name}/")}
    if not inside:
        raise BadInputError(Reason.MISSING_COMPONENT, f"there is no folder {part.name}: the checkpoint must contain it")
    missing = [name for name in part.required if f"{part.name}/{name}" not in inside]
    if missing:
        raise BadInputError(Reason.MISSING_FILE, f"{part.name} lacks {', '.join(missing)}")
    files = [f"{part.name}/{name}" for name in (*part.required, *part.optional) if f"{part.name}/{name}" in inside]
    return files if part.weights is None else files + _weights(part, part.weights, inside)


def _weights(part: Part, stem: str, inside: set[str]) -> list[str]:
    """One safetensors file, or its index and all shards."""
    single = f"{part.name}/{stem}.safetensors"
    if single in inside:
        return [single]
    index = f"{part.name}/{stem}.safetensors.index.json"
    if index in inside:
        shards = [n for n in inside if n.startswith(f"{part.name}/{stem}-") and n.endswith(".safetensors")]
        return [index, *shards]
    if any(name.endswith(_PICKLES) for name in inside):
        raise BadInputError(
            Reason.PICKLE_ONLY,
            f"{part.name} has its weights only as a pickle, which can run code when it is loaded: convert them "
            f"to {stem}.safetensors",
        )
    raise BadInputError(Reason.MISSING_FILE, f"{part.name} has no weights: {single} is expected")
