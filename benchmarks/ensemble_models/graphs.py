"""A component of a checkpoint on a GPU, with as much of ONNX Runtime's session as its callers use.

Each batch and size is a CUDA graph of its own, recorded when it is first asked for: a call costs what the GPU computes,
whatever was called before.
"""

from __future__ import annotations

import site
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

# Triton's interpreter starts in the folder where packages are installed, and finds no editable ones.
site.addsitedir(str(Path.cwd()))

from diffusion_builder.components.parts import UNET, VAE, LoadContext
from diffusion_builder.components.registry import COMPONENTS
from diffusion_contract.enums import Component, Precision
from diffusion_contract.exports import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# What has weights beside its model.py runs here: the checkpoint's folder, and what is made of it.
ON_GPU = {UNET: Component.DENOISER, VAE: Component.VAE_DECODER}
_WARM_UPS = 3


def weights(version: Path) -> Path:
    """The checkpoint's folder beside a model.py."""
    return next(version / name for name in ON_GPU if (version / name).exists())


class Session:
    """A component in half precision.

    Args:
        folder: of its weights, as `weights` finds it.
    """

    def __init__(self, folder: Path) -> None:
        spec = COMPONENTS[ON_GPU[folder.name]]
        loaded = spec.load(LoadContext({folder.name: folder}, ExportOptions()), Precision.FLOAT16)
        self._module = loaded.module.cuda()
        self.inputs = [tensor.name for tensor in spec.interface(loaded.facts).inputs]
        self._graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def run(self, _output_names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute the one output."""
        inputs = [torch.from_numpy(feed[name]) for name in self.inputs]
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = _record(self._module, inputs)
        return [self._graphs[shapes].run(inputs)]


@dataclass(frozen=True)
class _Graph:
    """A recorded call, which reads and writes always the same memory."""

    graph: torch.cuda.CUDAGraph
    static_inputs: list[torch.Tensor]
    result: torch.Tensor

    def run(self, inputs: Sequence[torch.Tensor]) -> NDArray[Any]:
        for target, tensor in zip(self.static_inputs, inputs, strict=True):
            target.copy_(tensor)
        self.graph.replay()
        return self.result.cpu().numpy()


def _record(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> _Graph:
    static_inputs = [tensor.cuda() for tensor in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # What is chosen or allocated at first calls must not be part of the graph.
            for _ in range(_WARM_UPS):
                module(*static_inputs)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            result = module(*static_inputs)
    return _Graph(graph, static_inputs, result)
