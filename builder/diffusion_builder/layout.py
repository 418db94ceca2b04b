"""Which files of a checkpoint in diffusers layout are wanted, and whether they are safe and complete.

Pure functions over file names and parsed JSON: the hub and a local folder are judged by the same rules.
Only safetensors, JSON and text ever get into the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODEL_INDEX = "model_index.json"
PIPELINES = ("StableDiffusionPipeline",)
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
# Larger than any vocabulary; a JSON file beyond it only costs memory.
MAX_TEXT_BYTES = 64 << 20


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
        ("vocab.json", "merges.txt", "tokenizer.json", "special_tokens_map.json"),
    ),
    Part("scheduler", (), None, ("scheduler_config.json",)),
)  # fmt: skip


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
    if "auto_map" in config:
        raise BadInputError(
            Reason.REMOTE_CODE,
            f"{name} has auto_map, which makes loaders run Python code of the repository: remove it if the "
            "checkpoint works without",
        )


def check_path(name: str) -> None:
    """Refuse names that could lead out of the folder they are written to.

    Raises:
        BadInputError: absolute, parent, empty or backslashed parts.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise BadInputError(Reason.UNSAFE_PATH, f"the checkpoint has a file named {name!r}, which leads out of it")


def wanted(names: Sequence[str]) -> tuple[str, ...]:
    """Choose the files to take, sorted.

    Args:
        names: all files of the checkpoint, relative, with forward slashes.

    Raises:
        BadInputError: something that is needed is not there.
    """
    present = set(names)
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
