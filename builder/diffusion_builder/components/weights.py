"""Load models without ever holding their weights twice, and only when every weight is there."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from diffusion_builder.components.base import TorchModel

_STEM = "diffusion_pytorch_model"
_TOGETHER = "Do config.json and weights belong together?"


def diffusers_model(model_class: TorchModel, folder: Path, dtype: torch.dtype) -> TorchModel:
    """Make a model of diffusers from its configuration and put the weights of its files in.

    The library's own loader first fills a model with random numbers, which takes time and memory, and leaves them
    where a weight is missing.

    Raises:
        BadInputError: the configuration makes no model, or weights are missing, left over, or of other shapes.
    """
    with _configured(folder.name), torch.device("meta"):
        model = model_class.from_config(model_class.load_config(folder, local_files_only=True))
    state = {name: tensor.to(dtype) for name, tensor in _state(folder).items()}
    # Old autoencoders name the weights of their attention differently; the library's loader does the same.
    model._fix_state_dict_keys_on_load(state)  # noqa: SLF001
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        # Its first line says only that there are errors.
        raise BadInputError(
            Reason.INVALID_WEIGHTS, f"{folder.name}: {str(error).splitlines()[1].strip()} {_TOGETHER}"
        ) from error
    check_missing_keys(folder.name, missing, unexpected)
    return freeze(model)


def transformers_model(model_class: TorchModel, folder: Path, dtype: torch.dtype) -> TorchModel:
    """Load a model of transformers.

    Raises:
        BadInputError: the configuration makes no model, weights are missing or of other shapes, or there are more
            layers than it lists.
    """
    # Eager attention has no data-dependent Python branches that a trace would freeze.
    with _configured(folder.name):
        model, info = model_class.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation="eager",
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    if info["mismatched_keys"]:
        key, stored, needed = min(info["mismatched_keys"])
        raise BadInputError(
            Reason.INVALID_WEIGHTS,
            f"{folder.name}: {key} is {list(stored)}, config.json requires {list(needed)}. {_TOGETHER}",
        )
    # Left over is normal here: files often hold a head or position numbers that this class does not use.
    check_missing_keys(folder.name, info["missing_keys"], _more_layers(model, folder, info["unexpected_keys"]))
    return freeze(model)


@contextmanager
def _configured(part: str) -> Iterator[None]:
    """Untrusted numbers and names can fail anywhere in a library: none of it is a bug of ours."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        StrictDataclassError,
        TypeError,
        ValueError,
    ) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInputError(
            Reason.INVALID_CONFIG, f"{part}: no model can be made from config.json ({lines[-1].strip()}). {_TOGETHER}"
        ) from error


def _more_layers(model: TorchModel, folder: Path, unexpected: Collection[str]) -> list[str]:
    """Weights of layers beyond the library's default number, where the configuration says none.

    A number that is written down is meant: a smaller one than the file's leaves out the last layers.
    """
    if "num_hidden_layers" in (folder / "config.json").read_text(encoding="utf-8"):
        return []
    names = model.state_dict().keys()
    return [key for key in unexpected if re.sub(r"\.layers\.\d+\.", ".layers.0.", key) in names]


def freeze(model: TorchModel) -> TorchModel:
    """Put a model into evaluation mode, without gradients."""
    return model.eval().requires_grad_(requires_grad=False)


def check_missing_keys(part: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Reject weights that are not those of the model.

    Raises:
        BadInputError: naming one of them.
    """
    for names, what in ((missing, "lacks"), (unexpected, "has, unknown to its config.json,")):
        if names:
            raise BadInputError(
                Reason.INVALID_WEIGHTS,
                f"{part} {what} {len(names)} weights, such as {min(names)}. {_TOGETHER}",
            )


def _state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a part, of one file or of shards, mapped into memory."""
    single = folder / f"{_STEM}.safetensors"
    if single.exists():
        return load_file(single)
    index: dict[str, Any] = json.loads((folder / f"{_STEM}.safetensors.index.json").read_text(encoding="utf-8"))
    state: dict[str, torch.Tensor] = {}
    for name in sorted(set(index["weight_map"].values())):
        state |= load_file(folder / name)
    return state
