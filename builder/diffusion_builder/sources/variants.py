"""Which files hold the weights of a part: plain ones or a variant, in one piece or in shards.

Names are those of diffusers and transformers: `model.safetensors`, `model.fp16.safetensors`,
`model.safetensors.index.json`, `model.safetensors.index.fp16.json`, `model-00001-of-00002.safetensors`,
`model.fp16-00001-of-00002.safetensors`, and the older `model-00001-of-00002.fp16.safetensors`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason
from diffusion_builder.sources.names import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VARIANT = r"[A-Za-z0-9_-]{1,64}"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
# The plain weights' own name among variants.
_PLAIN = ""


def is_pickle(name: str) -> bool:
    """Whether loading a file could run code."""
    return name.endswith(_PICKLES)


@dataclass
class _Set:
    """One complete set of weights: a single file, or an index and its shards."""

    single: str | None = None
    index: str | None = None
    shards: list[str] = field(default_factory=list)

    @property
    def loadable(self) -> bool:
        return self.single is not None or self.index is not None


def variants(stem: str, names: Iterable[str]) -> list[str]:
    """The variants of weights that are there, without the plain ones.

    Args:
        stem: of the weights' file, such as `model`.
        names: of the files in the part's folder.
    """
    return sorted(name for name, weights in _sets(stem, names).items() if name != _PLAIN and weights.loadable)


def select_weights(part: str, stem: str, names: Iterable[str], variant: str | None) -> Mapping[str, str]:
    """Choose the files with a part's weights.

    Args:
        part: for messages.
        stem: of the weights' file, such as `model`.
        names: of the files in the part's folder.
        variant: which one is requested; plain weights are taken where a part has none of it. Without one: the plain
            weights, or else the only variant there is.

    Returns:
        Name in the store, which is that of plain weights, to name in the origin.

    Raises:
        BadInputError: there are none, only as a pickle, or several variants to choose from.
    """
    present = list(names)
    sets = {name: each for name, each in _sets(stem, present).items() if each.loadable}
    weights = sets.get(variant or _PLAIN) or sets.get(_PLAIN)
    if weights is None and variant is None and len(sets) == 1:
        weights = next(iter(sets.values()))
    if weights is None and sets:
        problem = f"no weights of the variant {variant!r}" if variant else "its weights only as variants"
        raise BadInputError(
            Reason.MISSING_FILE,
            f"{part} has {problem}; there are: {', '.join(sorted(sets))}. Name one with --variant (in a pipeline: the "
            "source's variant)",
        )
    if weights is None and any(is_pickle(name) for name in present):
        raise BadInputError(
            Reason.PICKLE_ONLY,
            f"{part} has its weights only as a pickle, which can run code when it is loaded: convert them "
            f"to {stem}{WEIGHTS}",
        )
    if weights is None:
        raise BadInputError(Reason.MISSING_FILE, f"{part} has no weights: {part}/{stem}{WEIGHTS} is expected")
    if weights.single is not None:
        return {f"{stem}{WEIGHTS}": weights.single}
    index = {f"{stem}{WEIGHTS}.index.json": str(weights.index)}
    # The index names its shards, so these keep their names.
    return index | {shard: shard for shard in sorted(weights.shards)}


def _sets(stem: str, names: Iterable[str]) -> Mapping[str, _Set]:
    """Variant to weights; the plain ones are called by the empty name."""
    plain = re.escape(f"{stem}{WEIGHTS}")
    single = re.compile(rf"{re.escape(stem)}(?:\.({VARIANT}))?{re.escape(WEIGHTS)}")
    index = re.compile(rf"{plain}(?:\.({VARIANT}))?\.index\.json|{plain}\.index\.({VARIANT})\.json")
    number = rf"(?:\.({VARIANT}?))?-\d+-of-\d+(?:\.({VARIANT}))?"
    shard = re.compile(rf"{re.escape(stem)}(?:{number}|-[^./]+){re.escape(WEIGHTS)}")
    sets: dict[str, _Set] = {}
    for name in names:
        if match := shard.fullmatch(name):
            sets.setdefault(match[1] or match[2] or _PLAIN, _Set()).shards.append(name)
        elif match := single.fullmatch(name):
            sets.setdefault(match[1] or _PLAIN, _Set()).single = name
        elif match := index.fullmatch(name):
            sets.setdefault(match[1] or match[2] or _PLAIN, _Set()).index = name
    return sets
