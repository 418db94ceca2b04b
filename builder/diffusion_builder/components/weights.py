"""Load models without ever holding their weights twice, and only when every weight is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from diffusion_builder.components.base import Model

_STEM = "diffusion_pytorch_model"
_TOGETHER = "Do config.json and weights belong together?"


def diffusers_model(model_class: Model, folder: Path, dtype: torch.dtype) -> Model:
    """Make a model of diffusers from its configuration and put the weights of its files in.

    The library's own loader first fills a model with random numbers, which takes time and memory, and leaves them
    where a weight is missing.

    Raises:
        BadInputError: weights are missing, left over, or of other shapes.
    """
    with torch.device("meta"):
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
    complain(folder.name, missing, unexpected)
    return ready(model)


def transformers_model(model_class: Model, folder: Path, dtype: torch.dtype) -> Model:
    """Load a model of transformers.

    Raises:
        BadInputError: weights are missing.
    """
    # Eager attention has no data-dependent Python branches that a trace would freeze.
    model, info = model_class.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation="eager",
        output_loading_info=True,
    )  # fmt: skip
    # Left over is normal here: files often hold a head or position numbers that this class does not use.
    complain(folder.name, info["missing_keys"], ())
    return ready(model)


def ready(model: Model) -> Model:
    """Put a model into evaluation mode, without gradients."""
    return model.eval().requires_grad_(requires_grad=False)


def complain(part: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse weights that are not those of the model.

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
