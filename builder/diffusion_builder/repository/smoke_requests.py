"""For each ensemble a small request that a working server must answer with an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusion_contract import python_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusion_builder.repository.graph import Ensemble
    from diffusion_contract.model_facts import ModelFacts
    from diffusion_contract.spec import Shapes
    from diffusion_contract.tensors import DType

_PROMPT = "a picture"
# Edge of the images that are sent; the server resizes them.
_EDGE = 64


def smoke_request(ensemble: Ensemble, facts: ModelFacts, shapes: Shapes) -> list[Mapping[str, Any]]:
    """Tensors of the request: name, datatype and shape; data where any numbers would not do.

    Args:
        ensemble: receiver of the request.
        facts: the checkpoint's numbers.
        shapes: the smallest image of these is requested.
    """
    dtypes = {port.name: port.dtype for port in ensemble.inputs}
    height, width = shapes.smallest
    values = {python_models.PROMPT: _PROMPT, python_models.HEIGHT: height, python_models.WIDTH: width}
    tensors: list[Mapping[str, Any]] = [
        _tensor(tensor.name, tensor.dtype, (1,)) | {"data": [value]}
        for tensor, value in values.items()
        if tensor.name in dtypes
    ]
    return tensors + [_tensor(name, dtypes[name], shape) for name, shape in _shapes(dtypes, facts)]


def _shapes(dtypes: Mapping[str, DType], facts: ModelFacts) -> Iterator[tuple[str, Sequence[int]]]:
    if python_models.PROMPT.name not in dtypes:
        for embeddings in (python_models.PROMPT_EMBEDDINGS, python_models.NEGATIVE_PROMPT_EMBEDDINGS):
            yield embeddings.name, (facts.text_length, facts.text_width)
    if python_models.POOLED_PROMPT_EMBEDDINGS.name in dtypes:
        for pooled in (python_models.POOLED_PROMPT_EMBEDDINGS, python_models.NEGATIVE_POOLED_PROMPT_EMBEDDINGS):
            yield pooled.name, (facts.pooled_width,)
    if python_models.INPUT_IMAGE.pixels.name in dtypes:
        yield python_models.INPUT_IMAGE.pixels.name, (_EDGE, _EDGE, 3)
    if python_models.MASK.pixels.name in dtypes:
        yield python_models.MASK.pixels.name, (_EDGE, _EDGE)
    if python_models.IP_ADAPTER_WEIGHT.name in dtypes:
        yield python_models.IP_ADAPTER_IMAGE.pixels.name, (1, _EDGE, _EDGE, 3)
    pixels, _ = python_models.control_image("")
    for name, dtype in dtypes.items():
        if name.startswith(pixels.name) and dtype is pixels.dtype:
            yield name, (_EDGE, _EDGE, 3)


def _tensor(name: str, dtype: DType, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": str(dtype), "shape": [1, *shape]}
