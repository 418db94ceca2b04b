"""A typed graph of an ensemble, checked before anything is rendered.

Triton finds most mistakes only when it loads a repository, and some only as a request that never ends. What
is checked here: every tensor is produced once and consumed, required inputs are mapped, dtype and dimensions
agree, an output of the ensemble is never also read by a step, and what a request sends is read on the way to
each output (Triton 2.51 reports the last two as an unexpected deadlock).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from diffusion_contract.tensors import DType

# One mistake in a map shows at several places; more than a few lines do not help.
_MAX_LISTED = 5


@dataclass(frozen=True)
class Port:
    """An input or output with the dimensions of one checkpoint; -1 is dynamic."""

    name: str
    dtype: DType
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class TritonModel:
    """A model of the repository, as its config.pbtxt declares it."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class EnsembleStep:
    """One use of a model in an ensemble: port name to tensor name."""

    model: TritonModel
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Ensemble:
    """A dataflow graph under one name."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[EnsembleStep, ...]


@dataclass(frozen=True)
class _Endpoint:
    """One end of a tensor: where it is, and what is declared there."""

    place: str
    port: Port


def validate_ensemble(ensemble: Ensemble) -> None:
    """Check an ensemble.

    Raises:
        BadInputError: with the name of the ensemble, the step and the tensor.
    """
    problems = list(_problems(ensemble))
    if problems:
        raise BadInputError(Reason.INVALID_ENSEMBLE, f"{ensemble.name}: {'; '.join(problems[:_MAX_LISTED])}")


def _problems(ensemble: Ensemble) -> Iterator[str]:
    yield from _unmapped(ensemble)
    producers = list(_producers(ensemble))
    consumers = list(_consumers(ensemble))
    yield from _names(ensemble, producers, consumers)
    by_name = dict(producers)
    for tensor, consumer in consumers:
        if tensor in by_name:
            yield from _mismatch(tensor, by_name[tensor], consumer)
    for port in ensemble.outputs:
        yield from _unread_inputs(ensemble, port.name)


def _unread_inputs(ensemble: Ensemble, output: str) -> Iterator[str]:
    """Inputs that nothing on the way to an output reads.

    Triton leaves out the steps that the requested outputs do not need, going backwards from the tensors that no
    step reads. It takes an input of the ensemble among those for an output of step 0 and may leave that out too.
    """
    reached = ancestors(ensemble, [output])
    for port in ensemble.inputs:
        if port.name not in reached:
            yield f"input {port.name} is read by no step that output {output} needs"


def ancestors(ensemble: Ensemble, tensors: Iterable[str]) -> set[str]:
    """The tensors that these are made from, directly or not, and themselves."""
    makers = {tensor: step for step in ensemble.steps for tensor in step.outputs.values()}
    open_, reached = list(tensors), set[str]()
    while open_:
        tensor = open_.pop()
        if tensor not in reached:
            reached.add(tensor)
            open_ += makers[tensor].inputs.values() if tensor in makers else ()
    return reached


def _place(index: int, step: EnsembleStep) -> str:
    return f"step {index} ({step.model.name})"


def _producers(ensemble: Ensemble) -> Iterator[tuple[str, _Endpoint]]:
    for port in ensemble.inputs:
        yield port.name, _Endpoint("the ensemble's input", port)
    for index, step in enumerate(ensemble.steps):
        ports = {port.name: port for port in step.model.outputs}
        for name, tensor in step.outputs.items():
            if name in ports:
                yield tensor, _Endpoint(_place(index, step), ports[name])


def _consumers(ensemble: Ensemble) -> Iterator[tuple[str, _Endpoint]]:
    for index, step in enumerate(ensemble.steps):
        ports = {port.name: port for port in step.model.inputs}
        for name, tensor in step.inputs.items():
            if name in ports:
                yield tensor, _Endpoint(_place(index, step), ports[name])
    for port in ensemble.outputs:
        yield port.name, _Endpoint("the ensemble's output", port)


def _unmapped(ensemble: Ensemble) -> Iterator[str]:
    certain = {port.name for port in ensemble.inputs if not port.optional}
    certain |= {tensor for step in ensemble.steps for tensor in step.outputs.values()}
    for index, step in enumerate(ensemble.steps):
        place = _place(index, step)
        input_names = {port.name for port in step.model.inputs}
        required = {port.name for port in step.model.inputs if not port.optional}
        for name in sorted(required - step.inputs.keys()):
            yield f"{place} maps nothing to its input {name}"
        for name in sorted(step.inputs.keys() - input_names):
            yield f"{place} has no input {name}"
        for name in sorted(step.outputs.keys() - {port.name for port in step.model.outputs}):
            yield f"{place} has no output {name}"
        if not step.outputs:
            yield f"{place} has no output that is used"
        if not any(tensor in certain for tensor in step.inputs.values()):
            # Triton 2.51 was seen to end when a request reached a Python model without a single input.
            yield f"{place} has only optional inputs: a request without any of them must not reach a model"


def _names(
    ensemble: Ensemble, producers: list[tuple[str, _Endpoint]], consumers: list[tuple[str, _Endpoint]]
) -> Iterator[str]:
    for tensor, count in Counter(name for name, _ in producers).items():
        if count > 1:
            yield f"tensor {tensor} is produced {count} times"
    produced, consumed = {name for name, _ in producers}, {name for name, _ in consumers}
    for tensor, end in consumers:
        if tensor not in produced:
            yield f"tensor {tensor}, read by {end.place}, is produced by no step"
    for tensor, end in producers:
        if tensor not in consumed:
            yield f"tensor {tensor} of {end.place} is never consumed"
    inner = {tensor for step in ensemble.steps for tensor in step.inputs.values()}
    for port in ensemble.outputs:
        if port.name in inner:
            yield f"output {port.name} is also read by a step: it must come from a terminal model"


def _mismatch(tensor: str, producer: _Endpoint, consumer: _Endpoint) -> Iterator[str]:
    source_port, sink_port = producer.port, consumer.port
    if source_port.dtype is not sink_port.dtype:
        yield (f"tensor {tensor} is {source_port.dtype} at {producer.place} and {sink_port.dtype} at {consumer.place}")
    agree = len(source_port.dims) == len(sink_port.dims) and all(
        -1 in (source_dim, sink_dim) or source_dim == sink_dim
        for source_dim, sink_dim in zip(source_port.dims, sink_port.dims, strict=False)
    )
    if not agree:
        source_text = f"{list(source_port.dims)} at {producer.place}"
        yield f"tensor {tensor} is {source_text} and {list(sink_port.dims)} at {consumer.place}"
    if source_port.optional and not sink_port.optional:
        yield f"tensor {tensor} may be left out of a request, but {consumer.place} requires it"
