"""Render config.pbtxt files; Triton completes nothing by itself, so each one is complete."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from diffusion_builder.repository.server_requirements import graph_batches
from diffusion_contract.enums import LOOP_DENOISERS, Component
from diffusion_contract.tensors import MODEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusion_builder.engines.tensorrt.profiles import Profile
    from diffusion_builder.repository.graph import Ensemble, Port, TritonModel
    from diffusion_contract.assembly import Queues
    from diffusion_contract.spec.serving import Cuda

# Models of the denoising loop share one resource, so that a request that must wait does so at a short model and not at
# the denoiser: whoever comes back meanwhile joins it (ADR 6). Of two that wait the one with the smaller product of
# this number and its calls so far is first: the denoiser starts when no other model of the loop is waiting.
# Variants of the denoiser share its calls, and their numbers are larger by as much as their calls are fewer.
_SCHEDULER_STEP, _DENOISERS = MODEL_NAMES[Component.SCHEDULER_STEP], {MODEL_NAMES[item] for item in LOOP_DENOISERS}
_CONTROLNETS = f"{MODEL_NAMES[Component.CONTROLNET]}_"
_STEP_PRIORITY, _CONTROLNET_PRIORITY, _DENOISER_PRIORITY = 100, 200, 1000


@dataclass(frozen=True)
class PlanFile:
    """TensorRT plan of a model configuration.

    Args:
        file: name of the plan.
        profiles: its optimization profiles, in their order in the plan.
    """

    file: str
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class WarmUp:
    """One request that a model is warmed up with.

    Args:
        name: what it is called in the log.
        batch: samples.
        inputs: with dimensions of one sample, all known.
    """

    name: str
    batch: int
    inputs: tuple[Port, ...]


@dataclass(frozen=True)
class CudaGraph:
    """A batch that a model is launched for as one CUDA graph.

    Args:
        batch: samples.
        inputs: with dimensions of one sample, all known.
    """

    batch: int
    inputs: tuple[Port, ...]


class Renderer:
    """Templates with what all models of a repository share.

    Args:
        templates: the folder of `*.pbtxt.j2`.
        max_batch: largest batch of every model.
        batching: queue settings of the engines.
        denoiser_calls: how often the ensembles call each variant of the denoiser, by model name.
        cuda: how TensorRT's engines are launched.
    """

    def __init__(
        self,
        templates: Path,
        max_batch: int,
        batching: Queues,
        denoiser_calls: Mapping[str, int],
        cuda: Cuda | None = None,
    ) -> None:
        self._environment = Environment(  # noqa: S701 - protobuf text, not HTML; strings are quoted by `quote`
            loader=FileSystemLoader(templates),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        # JSON strings are valid protobuf text strings.
        self._environment.filters["quote"] = json.dumps
        self._max_batch = max_batch
        self._batching = batching
        self._cuda = cuda
        self._denoiser_calls = denoiser_calls

    def engine(self, model: TritonModel, plan: PlanFile | None = None) -> str:
        """A model with an engine: requests wait for company as the batching settings say.

        Args:
            model: what it reads and writes.
            plan: of TensorRT; None for an ONNX file behind the Python model.
        """
        return self._model(model, plan, self._batching, {})

    def python(self, model: TritonModel, parameters: Mapping[str, str] | None = None) -> str:
        """A model without an engine: whatever is queued is handled together, nothing waits.

        Args:
            model: what it reads and writes.
            parameters: that clients can read.
        """
        return self._model(model, None, None, parameters or {})

    def ensemble(self, ensemble: Ensemble) -> str:
        """An ensemble with all its steps."""
        return self._render("ensemble.pbtxt.j2", ensemble=ensemble)

    def _model(
        self, model: TritonModel, plan: PlanFile | None, batching: Queues | None, parameters: Mapping[str, str]
    ) -> str:
        warm_ups = warm_up(model, plan) if plan else ()
        turn = self._rate_limit(model.name)
        cuda = self._cuda if plan and _is_in_loop(model.name) else None
        graphs = cuda_graphs(model, plan) if plan and cuda and cuda.graphs else ()
        priorities = self._batching.priorities and model.name in self._denoiser_calls
        return self._render(
            "model.pbtxt.j2", model=model, plan=plan, batching=batching, turn=turn, priorities=priorities,
            warm_ups=warm_ups, cuda=cuda, graphs=graphs, is_ahead=plan is not None and _is_short(model.name),
            parameters=parameters,
        )  # fmt: skip

    def _rate_limit(self, model: str) -> int | None:
        if not (self._batching.take_turns and _is_in_loop(model)):
            return None
        if model in self._denoiser_calls:
            return _DENOISER_PRIORITY * sum(self._denoiser_calls.values()) // self._denoiser_calls[model]
        return _CONTROLNET_PRIORITY if model.startswith(_CONTROLNETS) else _STEP_PRIORITY

    def _render(self, template: str, **values: object) -> str:
        return self._environment.get_template(template).render(max_batch=self._max_batch, **values)


def _is_in_loop(model: str) -> bool:
    """Whether a model is called once a step."""
    return model == _SCHEDULER_STEP or model in _DENOISERS or model.startswith(_CONTROLNETS)


def _is_short(model: str) -> bool:
    """Whether a model's kernels are few beside those of the denoising networks, so that the GPU runs them first.

    A request whose loop is over leaves earlier, and its successor joins the loop earlier: batches are fuller.
    """
    return model == _SCHEDULER_STEP or not _is_in_loop(model)


def cuda_graphs(model: TritonModel, plan: PlanFile) -> tuple[CudaGraph, ...]:
    """A graph for each of `graph_batches`, of the shapes that a plan is tuned for.

    Triton captures each one for every profile, and launches a batch of another shape kernel by kernel.
    """
    profile = plan.profiles[0]
    smallest, largest = min(item.min[0] for item in profile), max(item.max[0] for item in profile)
    inputs = _tuned_inputs(model, profile)
    return tuple(CudaGraph(size, inputs) for size in graph_batches(smallest, largest))


def warm_up(model: TritonModel, plan: PlanFile) -> tuple[WarmUp, ...]:
    """One request per profile, of the shapes that it is tuned for: what is loaded late is loaded before the first user.

    Dimensions that the model's configuration fixes stay as they are.
    """
    requests: list[WarmUp] = []
    for profile in plan.profiles:
        batch = max(item.opt[0] for item in profile)
        inputs = _tuned_inputs(model, profile)
        name = f"batch of {batch}"
        is_repeated = any(request.name == name for request in requests)
        requests.append(WarmUp(f"{name}, profile {len(requests)}" if is_repeated else name, batch, inputs))
    return tuple(requests)


def _tuned_inputs(model: TritonModel, profile: Profile) -> tuple[Port, ...]:
    """A model's inputs with the dimensions that a profile is tuned for."""
    tuned = {item.name: item.opt[1:] for item in profile}
    return tuple(_opt_shape(port, tuned[port.name]) for port in model.inputs)


def _opt_shape(port: Port, opt: tuple[int, ...]) -> Port:
    dims = tuple(usual if dim < 0 else dim for dim, usual in zip(port.dims, opt, strict=True))
    return type(port)(port.name, port.dtype, dims)
