"""For each ensemble a small request that a working server must answer with a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_builder.repository import python_models as python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusion_builder.repository.graph import Ensemble
    from diffusion_builder.repository.spec import Shapes
    from diffusion_contract.tensors import DType, Facts

_PROMPT = "a picture"
# Edge of the pictures that are sent; the server resizes them.
_EDGE = 64


def golden_request(ensemble: Ensemble, facts: Facts, shapes: Shapes) -> list[Mapping[str, Any]]:
    """The request's tensors: name, datatype and shape; data where not any numbers will do.

    Args:
        ensemble: which one.
        facts: the checkpoint's numbers.
        shapes: whose smallest picture is asked for.
    """
    dtypes = {port.name: port.dtype for port in ensemble.inputs}
    values = {python.PROMPT: _PROMPT, python.HEIGHT: shapes.height.min, python.WIDTH: shapes.width.min}
    said = [
        _tensor(tensor.name, tensor.dtype, (1,)) | {"data": [value]}
        for tensor, value in values.items()
        if tensor.name in dtypes
    ]
    return said + [_tensor(name, dtypes[name], shape) for name, shape in _shapes(dtypes, facts)]


def _shapes(known: Mapping[str, DType], facts: Facts) -> Iterator[tuple[str, Sequence[int]]]:
    if python.PROMPT.name not in known:
        for embeddings in (python.PROMPT_EMBEDDINGS, python.NEGATIVE_PROMPT_EMBEDDINGS):
            yield embeddings.name, (facts.text_length, facts.text_width)
    if python.INPUT_IMAGE[0].name in known:
        yield python.INPUT_IMAGE[0].name, (_EDGE, _EDGE, 3)
    if python.MASK[0].name in known:
        yield python.MASK[0].name, (_EDGE, _EDGE)
    if python.IP_ADAPTER_WEIGHT.name in known:
        yield python.IP_ADAPTER_IMAGE[0].name, (1, _EDGE, _EDGE, 3)
    pixels, _ = python.control_image("")
    for name, dtype in known.items():
        if name.startswith(pixels.name) and dtype is pixels.dtype:
            yield name, (_EDGE, _EDGE, 3)


def _tensor(name: str, dtype: DType, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": str(dtype), "shape": [1, *shape]}
